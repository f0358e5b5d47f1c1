"""How a job begins on the server: whom the others would refuse is left out, and the others begin."""

import dataclasses

import numpy as np
import pytest

from silo_app.aggregation import keys
from silo_app.aggregation.entry import Entry
from silo_app.encoder.job_record import JobRecord
from silo_app.encoder.ledger import STATISTICS, ClosedRound, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import NotReady, RoundRefused
from silo_app.flare import catch_up, words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.enrolment import Enrolment
from silo_app.flare.exchange import Exchanges
from silo_app.flare.presence import LONG, MISSES
from tests.aggregation.conftest import make, root  # noqa: F401  (fixtures)
from tests.flare.simulated_line import SimulatedLine

PLAN = TrainingPlan.checked({"straggler_wait_s": 0.2, "round_deadline_s": 5})
A, B, C, D = (f"silo-{index:02}" for index in range(4))


@pytest.fixture
def begin(make, tmp_path):  # noqa: F811  (a fixture)
    """Begin a job of four silos with faults; returns the record and the first round that the silos then run."""
    federation = make((10, 20, 30, 40))

    def go(plan=PLAN, **faults):
        line, ledger = SimulatedLine(federation), Ledger.begin(tmp_path / "rounds", federation.job, {})
        go.line = line
        line.faults |= {(silo, task): fault for task, by_silo in faults.items() for silo, fault in by_silo.items()}
        record, catch_up = JobRecord(tmp_path / "rounds.json", federation.job, {}), CatchUp(line, ledger)
        wrapped = Enrolment(line, ledger, plan, record, catch_up).run(sorted(federation.sessions))
        return record.content, Exchanges(line, ledger, plan, catch_up, wrapped).run(STATISTICS, None)

    go.federation = federation
    return go


def test_who_joins_has_the_time_to_read_all_its_images_and_a_cut_of_the_network_is_waited_for(begin):
    for given, joins_s, agrees_s in [(1800.0, 600.0, 60.0), (30.0, 30.0, 30.0), (0.0, 1.0, 1.0)]:
        begin(plan=PLAN.model_copy(update={"straggler_wait_s": given}))
        join, agree = (begin.line.patience[task] for task in (words.TASK_JOIN, words.TASK_AGREE))
        assert (join.deadline_s, join.straggler_s, join.unreached, join.held) == (600.0, joins_s, LONG, True)
        assert (agree.straggler_s, agree.unreached, agree.held) == (agrees_s, MISSES, False)


def other_start(federation, silo):
    exchange = federation.sessions[silo]._exchange
    content = dataclasses.replace(exchange._announcement(), initial=bytes(32))
    return lambda reply: reply.update({words.ANNOUNCEMENT: keys.announce(content, exchange.identity)})


def test_all_join(begin):
    record, first = begin()
    assert record["join"] == {"accepted": [A, B, C, D], "quarantined": {}}
    assert first.contributors == (A, B, C, D)


@pytest.mark.parametrize("silo", [A, C])
def test_a_silo_that_starts_from_other_weights_is_named_and_the_others_begin(begin, silo):
    """It may be the one that would make the key."""
    record, first = begin(**{words.TASK_JOIN: {silo: other_start(begin.federation, silo)}})
    rest = tuple(one for one in (A, B, C, D) if one != silo)
    assert record["join"]["accepted"] == list(rest)
    assert record["join"]["quarantined"][silo]["code"] == "update-refused"
    assert f"joined: {', '.join(rest)}; without {silo}: update-refused" in begin.line.told
    assert first.contributors == rest


@pytest.mark.parametrize("poison", [b"junk", b"", 7, None])
def test_junk_for_an_announcement_costs_its_silo_the_job(begin, poison):
    record, first = begin(**{words.TASK_JOIN: {A: lambda reply: reply.update({words.ANNOUNCEMENT: poison})}})
    assert set(record["join"]["quarantined"]) == {A}
    assert first.contributors == (B, C, D)


@pytest.mark.parametrize(
    "poison", [{A: b"junk", B: b"junk", C: b"junk"}, {B: 10**12}, {"stranger": b"x"}, 7, {B: b"x" * 2**21}]
)
def test_only_the_first_silo_makes_keys(begin, poison):
    record, first = begin(**{words.TASK_AGREE: {D: lambda reply: reply.update({words.WRAPPED_KEYS: poison})}})
    assert record["agree"]["quarantined"] == {}
    assert first.contributors == (A, B, C, D)


@pytest.mark.parametrize(
    "poison", [{}, {B: 10**12}, {"stranger": b"x"}, 7, {B: b"x" * 2**21}, {B: b"junk", C: b"junk", D: b"junk"}]
)
def test_the_others_begin_without_a_silo_whose_keys_are_none_or_do_not_open(begin, poison):
    record, first = begin(**{words.TASK_AGREE: {A: lambda reply: reply.update({words.WRAPPED_KEYS: poison})}})
    assert record["join"]["accepted"] == [B, C, D]
    assert first.contributors == (B, C, D)


def test_one_whose_own_key_alone_does_not_open_is_out_and_the_others_go_on(begin):
    record, first = begin(
        **{words.TASK_AGREE: {A: lambda reply: reply.update({words.WRAPPED_KEYS: reply[words.WRAPPED_KEYS] | {D: b"junk"}})}}
    )
    assert record["join"]["accepted"] == [A, B, C, D]
    assert first.contributors == (A, B, C)


def test_too_few_that_fit_together_begin_no_job(begin):
    faults = {silo: NotReady("no", remedy="none") for silo in (B, C)}
    faults[D] = lambda reply: reply.update({words.ANNOUNCEMENT: b"junk"})
    with pytest.raises(
        RoundRefused, match=f"only 1 silos joined the job, 2 are needed .{B}: not-ready; {C}: .*; {D}: message"
    ):
        begin(**{words.TASK_JOIN: faults})


@pytest.fixture
def resume(make, tmp_path):  # noqa: F811  (a fixture)
    """Resume a job of three silos that a fourth asks to enter; `asked` are those whom the server asks for keys, in order."""
    federation, asked = make((10, 20, 30, 40)), []
    requests = {silo: Entry("job-1", session._identity).request() for silo, session in federation.sessions.items()}

    def go(positions, gives, asking=None):
        Ledger.begin(tmp_path / "rounds", "job-0", {})
        line, ledger = SimulatedLine(federation), Ledger.resume(tmp_path / "rounds", "job-0", federation.job)
        go.line = line

        def restore(silo, _data, reply):
            entry = (asking or {}).get(silo, requests[silo] if silo == D else None)
            reply.update({words.NEXT_ROUND: positions.get(silo, 0)} if entry is None else {words.ENTRY: entry})

        def admit(silo, data, reply):
            assert data[words.ENTRIES] == {D: requests[D]}
            asked.append(silo)
            reply[words.ADMISSIONS] = gives(silo)

        def enter(silo, data, _reply):
            if silo not in data[words.ADMISSIONS]:
                raise NotReady("nobody admitted it", remedy="none")

        line.others = {words.TASK_RESTORE: restore, words.TASK_ADMIT: admit, words.TASK_ENTER: enter}
        record = JobRecord(tmp_path / "rounds.json", federation.job, {})
        plan = PLAN.model_copy(update={"resume": "job-0", "admit": (D,)})
        Enrolment(line, ledger, plan, record, CatchUp(line, ledger)).run([A, B, C, D])
        return record.content, tuple(record.content.get("enter", {"accepted": ()})["accepted"]), asked

    return go


def test_who_opened_the_most_rounds_is_asked_for_keys_first(resume):
    record, entered, asked = resume({A: 1, B: 3, C: 2}, lambda _silo: {D: b"sealed"})
    assert (record["restore"]["accepted"], record["join"]["accepted"]) == ([A, B, C], [A, B, C, D])
    assert (entered, asked) == ((D,), [B])
    assert resume.line.patience[words.TASK_RESTORE] == resume.line.patience[words.TASK_JOIN]
    assert record["enter"] == {"accepted": [D], "quarantined": {}}


@pytest.mark.parametrize("junk", [{}, {A: b"x"}, {D: 7}, 7, {D: b"x" * 2**21}])
def test_if_one_gives_no_keys_the_next_is_asked(resume, junk):
    _, entered, asked = resume({}, lambda silo: junk if silo == A else {D: b"sealed"})
    assert (entered, asked) == ((D,), [A, B])


@pytest.mark.parametrize("junk", [b"junk", 10**12, "text"])
def test_a_request_that_members_would_refuse_is_not_passed_on(resume, junk):
    record, entered, asked = resume({}, lambda _silo: {D: b"sealed"}, asking={D: junk})
    assert (entered, asked) == ((), [])
    assert record["join"]["accepted"] == [A, B, C]


def test_who_is_not_named_enters_nothing_and_spoils_nobodys_entrance(resume):
    """A silo that took part might say that it did not."""
    record, entered, _ = resume({}, lambda _silo: {D: b"sealed"}, asking={A: b"request"})
    assert entered == (D,)
    assert record["join"]["accepted"] == [B, C, D]


def test_without_keys_the_others_go_on(resume):
    record, entered, asked = resume({}, lambda _silo: {})
    assert (entered, asked) == ((), [A, B, C])
    assert record["enter"]["quarantined"][D]["code"] == "not-ready"
    assert record["join"]["accepted"] == [A, B, C]


def left_with(tmp_path, number=0):
    """Leave a ledger whose last sum is nonsense: the server was killed before the silos could say so."""
    ledger = Ledger.begin(tmp_path / "rounds", "job-0", {})
    ledger.close(ClosedRound(number=number, job="job-0", message=np.zeros(100, np.uint8), contributors=(A, B)))
    return ledger


@pytest.mark.parametrize("opened", [set(), {C}])
def test_a_last_sum_that_no_silo_can_open_does_not_stop_a_job_from_being_resumed(make, tmp_path, monkeypatch, opened):  # noqa: F811
    monkeypatch.setattr(catch_up, "_AGAIN_S", 0.0)
    left_with(tmp_path)
    federation = make((10, 20, 30, 40))
    line, ledger = SimulatedLine(federation), Ledger.resume(tmp_path / "rounds", "job-0", federation.job)
    line.others[words.TASK_RESTORE] = lambda silo, _data, reply: reply.update({words.NEXT_ROUND: int(silo in opened)})
    record = JobRecord(tmp_path / "rounds.json", federation.job, {})
    enrolment = Enrolment(line, ledger, PLAN.model_copy(update={"resume": "job-0"}), record, CatchUp(line, ledger))
    if opened:  # who could open it says that it is one
        with pytest.raises(RoundRefused, match="only 1 silos joined the job"):
            enrolment.run([A, B, C, D])
        assert not ledger.read(0).void
        return
    enrolment.run([A, B, C, D])
    assert ledger.read(0).void
    assert record.content["join"]["accepted"] == [A, B, C, D]
    assert "exchange 0: its sum is taken back, no silo can open it" in line.told
