"""One round on the server, with silos that answer, refuse or are not there; their messages are real, the network is not."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply

from silo_app.encoder.ledger import STATISTICS, UPDATE, ClosedRound, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.roll import Roll
from silo_app.errors import RoundRefused, SiloscopeError
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.exchange import Exchanges
from silo_app.flare.round_trip import Answers
from tests.aggregation.conftest import make, root  # noqa: F401  (fixtures)

PLAN = TrainingPlan.checked({"straggler_wait_s": 0.2, "round_deadline_s": 5})


class SimulatedLine:
    """`Line` in front of sessions: `faults` maps (silo, task) to an error, "late" or a function of the reply."""

    def __init__(self, federation):
        self.federation, self.roll, self.job = federation, Roll(), federation.job
        self.faults, self.gone, self.absent, self.told, self.aborted = {}, set(), set(), [], False

    def is_gone(self, silo):
        return silo in self.gone

    def is_absent(self, silo):
        return silo in self.gone | self.absent

    def tell(self, text):
        self.told.append(text)

    def cancel(self, task):
        task.completion_status = "cancelled"

    def post(self, name, data, silo, *, deadline_s, done):
        reply = self._reply(name, data, silo)
        done(reply)
        return SimpleNamespace(completion_status="done" if reply is not None else None)

    def ask(self, name, data, silos, patience, *, take=None, meanwhile=lambda: None):
        answers = Answers()
        meanwhile()
        for silo in silos:
            reply = self._reply(name, data, silo)
            if reply is None:
                answers.missing[silo] = "gone" if silo in self.gone else "late"
                continue
            if reply.get_return_code() != ReturnCode.OK:
                answers.refused[silo] = reply[words.REFUSAL]
                continue
            try:
                if take is not None:
                    take(silo, reply)
                answers.accepted[silo] = reply
            except SiloscopeError as error:
                answers.refused[silo] = {"code": error.code, "public": error.public}
        return answers

    def _reply(self, name, data, silo):
        fault = self.faults.get((silo, name))
        if silo in self.gone or fault == "late":
            return None
        session, reply = self.federation.sessions[silo], make_reply(ReturnCode.OK)
        try:
            if isinstance(fault, SiloscopeError):
                raise fault
            self._answer(session, name, data, reply)
        except SiloscopeError as error:
            reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
            reply[words.REFUSAL] = {"code": error.code, "public": error.public}
        self.roll.heard(silo, session.next_round)
        if words.BUNDLE in reply:
            self.roll.heard(silo, None, (reply[words.BUNDLE_ROUND], reply[words.BUNDLE]))
        return reply

    def _answer(self, session, name, data, reply):
        if words.CLOSED in data:
            close(session, data[words.CLOSED])
        if name == words.TASK_ROUND:
            session.begin_round(data[words.ROUND], data[words.BUNDLES])
            update = np.full(session.layout.size, 1e-3, dtype=np.float32)
            statistics = data[words.CONTENT] == STATISTICS
            send = session.encrypt_statistics if statistics else session.encrypt_update
            message = send(data[words.ROUND]) if statistics else send(data[words.ROUND], update)
            reply[words.UPDATE] = message.tobytes()
        elif name == words.TASK_SIGN:
            reply[words.SIGNATURE] = session.sign_survivors(data[words.ROUND], data[words.SURVIVORS])
        elif name == words.TASK_REVEAL:
            reply[words.REVEAL] = session.reveal(data[words.ROUND], data[words.SIGNATURES])
        if words.BUNDLE_ROUND in data:
            reply[words.BUNDLE_ROUND] = data[words.BUNDLE_ROUND]
            reply[words.BUNDLE] = session.share_secrets(data[words.BUNDLE_ROUND])


def close(session, packed):
    closed = ClosedRound.unpacked(packed)
    if closed.number < session.next_round:
        return
    if closed.void:
        session.void_round(closed.number)
    else:
        session.open_sum(closed.number, closed.message, closed.contributors, closed.reveals, closed.bundles)


@pytest.fixture
def job(make, tmp_path):  # noqa: F811  (a fixture)
    """Four silos after key exchange and statistics; returns (line, exchanges)."""
    federation = make((10, 20, 30, 40)).exchange()
    line = SimulatedLine(federation)
    line.roll.enrol(federation.sessions, 0)
    for silo, session in federation.sessions.items():
        line.roll.heard(silo, 0, (0, session.share_secrets(0)))
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


def test_an_aborted_job_closes_nothing(job):
    line, exchanges = job
    line.aborted = True
    with pytest.raises(RoundRefused, match="aborted"):
        exchanges.run(UPDATE, 0)
    assert exchanges.ledger.next_round == 1
