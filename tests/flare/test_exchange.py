"""One round on the server, with silos that answer, refuse or are not there; their messages are real, the network is not."""

import dataclasses

import pytest

from silo_app.aggregation import survivors, wire
from silo_app.aggregation.place import Place
from silo_app.encoder.ledger import STATISTICS, UPDATE, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import RoundRefused
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.exchange import Exchanges
from tests.aggregation.conftest import make, root  # noqa: F401  (fixtures)
from tests.flare.simulated_line import SimulatedLine

PLAN = TrainingPlan.checked({"straggler_wait_s": 0.2, "round_deadline_s": 5})


@pytest.fixture
def job(make, tmp_path):  # noqa: F811  (a fixture)
    """Four silos after key exchange and statistics; returns (line, exchanges)."""
    federation = make((10, 20, 30, 40)).exchange()
    line = SimulatedLine.begun(federation)
    ledger = Ledger.begin(tmp_path, federation.job, {})
    exchanges = Exchanges(line, ledger, PLAN, CatchUp(line, ledger))
    assert exchanges.run(STATISTICS, None).contributors == tuple(federation.sessions)
    return line, exchanges


A, B, C, D = (f"silo-{index:02}" for index in range(4))


def outcome(record):
    return record.contributors, {silo: (why.code, why.step) for silo, why in record.quarantined.items()}


def test_everybody_contributes(job):
    _, exchanges = job
    assert outcome(exchanges.run(UPDATE, 0)) == ((A, B, C, D), {})
    assert exchanges.needed == 3
    assert exchanges.ledger.sums() == 1


def test_silos_are_sampled_and_who_is_left_out_is_in_the_next_draw(job):
    line, exchanges = job
    exchanges.plan = PLAN.model_copy(update={"sample": 0.5})
    records = [exchanges.run(UPDATE, number) for number in range(6)]
    assert {len(record.contributors) for record in records} == {exchanges.needed} == {3}
    assert all(record.participants == record.contributors and not record.quarantined for record in records)
    assert len({record.contributors for record in records}) > 1
    exchanges.bring_up(exchanges.ledger.next_round)
    assert {line.roll.position(silo) for silo in (A, B, C, D)} >= {exchanges.ledger.next_round - 1}


def test_a_silo_that_refuses_or_is_gone_costs_its_own_update(job):
    line, exchanges = job
    line.faults[D, words.TASK_ROUND] = RoundRefused("no", remedy="none")
    assert outcome(exchanges.run(UPDATE, 0)) == ((A, B, C), {D: ("round-refused", "update")})
    line.faults.clear()
    line.gone.add(B)
    assert outcome(exchanges.run(UPDATE, 1))[0] == (A, C, D)
    assert line.told[-2].startswith("round 2: sum of silo-00, silo-02, silo-03; without silo-01: gone")


def test_a_silo_that_falls_silent_after_its_update_still_counts(job):
    line, exchanges = job
    line.faults[D, words.TASK_REVEAL] = "late"
    record = exchanges.run(UPDATE, 0)
    assert outcome(record) == ((A, B, C, D), {D: ("late", "reveal")})
    line.faults.clear()
    assert outcome(exchanges.run(UPDATE, 1)) == ((A, B, C, D), {})  # it caught up before the round began


def test_too_few_updates_void_the_round_and_the_job_goes_on(job):
    line, exchanges = job
    for silo in (B, C, D):
        line.faults[silo, words.TASK_ROUND] = "late"
    record = exchanges.run(UPDATE, 0)
    assert "1 updates of the 2" in record.void
    assert outcome(record) == ((), dict.fromkeys((B, C, D), ("late", "update")))
    line.faults.clear()
    assert outcome(exchanges.run(UPDATE, 0))[0] == (A, B, C, D)


def test_too_few_signatures_void_the_round(job):
    line, exchanges = job
    line.faults |= {(silo, words.TASK_SIGN): "late" for silo in (C, D)}
    assert exchanges.run(UPDATE, 0).void == "2 silos signed who arrived, 3 are needed"


def test_too_few_silos_void_the_round_before_it_begins(job):
    line, exchanges = job
    line.gone |= {C, D}
    exchanges.run(UPDATE, 0)
    record = exchanges.run(UPDATE, 0)
    assert record.void == "2 silos can take part, 3 are needed"
    assert outcome(record)[1] == dict.fromkeys((C, D), ("gone", "order"))


@pytest.mark.parametrize(("absent", "code"), [(set(), "behind"), ({C}, "gone")])
def test_who_missed_a_round_is_behind_only_if_it_is_there(job, absent, code):
    line, exchanges = job
    line.absent |= absent
    line.faults |= {(C, task): "late" for task in (words.TASK_ROUND, words.TASK_CATCH_UP)}
    exchanges.run(UPDATE, 0)
    assert outcome(exchanges.run(UPDATE, 1)) == ((A, B, D), {C: (code, "order")})


def test_a_sum_that_nobody_can_open_is_taken_back(job):
    line, exchanges = job
    exchanges.run(UPDATE, 0)
    file = next(exchanges.ledger._folder.glob("round-000001.update"))
    closed = exchanges.ledger.read(1)
    damaged = closed.message.copy()
    damaged[-100:] ^= 0xFF
    file.write_bytes(dataclasses.replace(closed, message=damaged).packed().tobytes())
    record = exchanges.run(UPDATE, 1)
    assert record.void
    assert exchanges.ledger.read(1).void
    assert "taken back" in " ".join(line.told)
    assert outcome(exchanges.run(UPDATE, 0))[0] == (A, B, C, D)


def first_to_differ(reply):
    header, body = wire.split(reply[words.UPDATE])
    reply[words.UPDATE] = wire.join(dataclasses.replace(header, basis=bytes(32)), body).tobytes()


POISON = {
    "an update unlike the others": (words.TASK_ROUND, first_to_differ, "update-refused", "update"),
    "junk for an update": (words.TASK_ROUND, lambda r: r.update({words.UPDATE: b"junk"}), "update-refused", "update"),
    "no update": (words.TASK_ROUND, lambda r: r.update({words.UPDATE: 7}), "update-refused", "update"),
    "junk for a signature": (words.TASK_SIGN, lambda r: r.update({words.SIGNATURE: b"junk"}), "message-invalid", "sign"),
    "junk for a reveal": (words.TASK_REVEAL, lambda r: r.update({words.REVEAL: b"junk"}), "message-invalid", "reveal"),
}


@pytest.mark.parametrize("case", POISON)
def test_what_one_silo_poisons_costs_the_others_nothing(job, case):
    """The first silo in name order answers first."""
    line, exchanges = job
    task, poison, code, step = POISON[case]
    line.faults[A, task] = poison
    for number in range(3):
        record = exchanges.run(UPDATE, number)
        assert not record.void
        assert set(record.contributors) >= {B, C, D}
        assert outcome(record)[1] == {A: (code, step)}
    assert exchanges.ledger.sums() == 3


def test_a_silo_that_signs_other_survivors_stops_nobody(job):
    line, exchanges = job
    session = line.federation.sessions[A]
    line.faults[A, words.TASK_SIGN] = lambda reply: reply.update(
        {words.SIGNATURE: survivors.sign_survivors(Place(session._members(), 1), (A, B), session._identity)}
    )
    record = exchanges.run(UPDATE, 0)
    assert outcome(record) == ((A, B, C, D), {A: ("round-refused", "sign")})


def test_masks_that_the_others_would_refuse_are_not_relayed(job):
    line, exchanges = job
    line.faults[A, words.TASK_REVEAL] = lambda reply: reply.update({words.BUNDLE: b"junk"})
    line.faults[A, words.TASK_CATCH_UP] = lambda reply: reply.update({words.BUNDLE: b"junk"})
    exchanges.run(UPDATE, 0)
    record = exchanges.run(UPDATE, 1)
    assert outcome(record) == ((B, C, D), {A: ("behind", "order")})
    assert "its masks for exchange 2 are not relayed" in " ".join(line.told)


def test_an_aborted_job_closes_nothing(job):
    line, exchanges = job
    line.aborted = True
    with pytest.raises(RoundRefused, match="aborted"):
        exchanges.run(UPDATE, 0)
    assert exchanges.ledger.next_round == 1
