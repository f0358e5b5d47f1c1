"""What the server's side of a training runs next, from what its ledger holds and what the silos said."""

import dataclasses
from types import SimpleNamespace

import pytest

from silo_app.aggregation import wire
from silo_app.encoder.job_record import REJECTED, UNOPENED, JobRecord
from silo_app.encoder.ledger import NUMBERS, STATISTICS, UPDATE, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import RoundRefused, SumRejected, UpdateRefused
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.exchange import Exchanges
from silo_app.flare.round_trip import Answers
from silo_app.flare.training import TrainingRounds
from tests.aggregation.conftest import make, root  # noqa: F401  (fixtures)
from tests.flare.simulated_line import SimulatedLine


@pytest.mark.parametrize("uncounted", [False, True])
@pytest.mark.parametrize(
    ("sums", "enough", "select", "following"),
    [
        ({}, False, "last", "statistics"),
        ({"statistics": 1}, False, "last", "update"),
        ({"statistics": 1, "update": 2}, False, "last", None),
        ({"statistics": 1, "update": 1}, True, "last", None),
        ({"statistics": 1, "update": 2}, False, "best", "numbers"),
        ({"statistics": 1, "update": 1}, True, "best", "numbers"),
        ({"statistics": 1, "update": 2, "numbers": 1}, False, "best", None),
        ({"statistics": 1, "update": 1, "numbers": 1}, False, "best", None),
    ],
)
def test_counts_come_first_and_the_last_weights_losses_last(sums, enough, select, following, uncounted):
    rounds = TrainingRounds()
    rounds._has_uncounted = lambda: uncounted
    rounds._plan = TrainingPlan(rounds=2, select=select)
    rounds._ledger = SimpleNamespace(sums=lambda content: sums.get(content, 0))
    assert rounds._next(enough=enough) == ("statistics" if uncounted and following == "update" else following)


@pytest.fixture
def job(make, tmp_path):  # noqa: F811  (a fixture)
    """A job of four silos whose keys are agreed on; returns its line, exchanges and the controller."""
    federation = make((10, 20, 30, 40)).exchange()
    line, ledger = SimulatedLine.begun(federation), Ledger.begin(tmp_path / "rounds", federation.job, {})
    rounds = TrainingRounds()
    rounds._plan = TrainingPlan.checked({"rounds": 3, "straggler_wait_s": 0.2, "round_deadline_s": 5})
    rounds._ledger, rounds._line = ledger, line
    return line, Exchanges(line, ledger, rounds._plan, CatchUp(line, ledger)), rounds


def test_who_was_late_for_the_statistics_is_counted_when_it_is_there(job, tmp_path):
    line, exchanges, rounds = job
    late = max(line.federation.sessions)
    line.faults[late, words.TASK_ROUND] = "late"
    assert late not in exchanges.run(STATISTICS, None).contributors
    line.faults.clear()
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    assert [late in one["accepted"] for one in record.content["statistics"]] == [True]
    assert [late in one["accepted"] for one in record.content["rounds"]][-1]
    assert rounds._ledger.sums(UPDATE) == 3


def test_nobody_counts_for_ever_for_one_that_never_sends_its_number(job, tmp_path):
    line, exchanges, rounds = job
    never = max(line.federation.sessions)
    line.faults[never, words.TASK_ROUND] = "late"
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    assert len(record.content["statistics"]) <= 4
    assert rounds._ledger.sums(UPDATE) == 3


def test_nobody_counts_for_one_that_is_gone(job, tmp_path):
    line, exchanges, rounds = job
    line.gone.add(max(line.federation.sessions))
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    assert len(record.content["statistics"]) == 1


def nonsense(reply):
    """Give what no key made: nobody can see it before it is summed."""
    header, body = wire.split(reply[words.UPDATE])
    body = body.copy()
    body[:5000] ^= 0x55
    reply[words.UPDATE] = wire.join(dataclasses.replace(header, body=wire.body_digest(body)), body).tobytes()


@pytest.fixture
def fails(monkeypatch):
    """Let a silo give nonsense for the updates of the exchanges that `when` (its number) names."""

    def begin(exchanges, line, when):
        run, bad = exchanges.run, min(line.federation.sessions)

        def at(content, training_round):
            if when(exchanges.ledger.next_round):
                line.faults[bad, words.TASK_ROUND] = nonsense
            else:
                line.faults.pop((bad, words.TASK_ROUND), None)
            assert exchanges.ledger.next_round < 30, "it goes on for ever"
            return run(content, training_round)

        monkeypatch.setattr(exchanges, "run", at)

    return begin


def test_a_silo_that_gives_nonsense_again_and_again_ends_the_job(job, fails, tmp_path):
    line, exchanges, rounds = job
    fails(exchanges, line, lambda number: number > 1)
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    with pytest.raises(RoundRefused, match=r"^4 rounds in a row ended without a sum; the last because no silo can open"):
        rounds._rounds(exchanges, record)
    told = record.content["rounds"]
    assert [(one["exchange"], one["outcome"]) for one in told] == [(1, "sum"), *((number, "void") for number in range(2, 6))]
    assert [one["why"] for one in told[1:]] == [
        UNOPENED,
        "no silo can open the sum of exchange 2",
        UNOPENED,
        "no silo can open the sum of exchange 4",
    ]
    assert rounds._ledger.sums(UPDATE) == 1  # nothing is left that could not be opened when the job is resumed


@pytest.mark.parametrize("number", [0, 1, 2])
def test_nonsense_now_and_then_costs_two_rounds(job, fails, tmp_path, number):
    line, exchanges, rounds = job
    fails(exchanges, line, lambda each: each == number)
    line.others[words.TASK_FINISH] = lambda _silo, _data, reply: reply.update({words.REPORT: {"encoder_version": "a" * 32}})
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    assert rounds._finish(exchanges, record)
    assert sum(one["outcome"] == "sum" for one in record.content["rounds"]) == 3


def kept(_silo, _data, reply):
    reply.update({words.REPORT: {"encoder_version": "a" * 32}})


@pytest.fixture
def rejects(monkeypatch):
    """Let three of four silos reject the sums of the exchanges that `poisoned` (a number) names, in the order after each."""

    def begin(exchanges, line, poisoned):
        run, most = exchanges.run, sorted(line.federation.sessions)[:3]
        error = SumRejected("it explodes", remedy="none")

        def keep_encoder(silo, data, reply):
            if silo in most and poisoned(exchanges.ledger.next_round - 1):
                raise error
            kept(silo, data, reply)

        def at(content, training_round):
            ledger = exchanges.ledger
            last = ledger.next_round - 1
            rejected = last > 0 and not ledger.read(last).void and poisoned(last)
            for silo in most:
                line.faults[silo, words.TASK_ROUND] = error if rejected else None
            assert ledger.next_round < 30, "it goes on for ever"
            return run(content, training_round)

        line.others[words.TASK_FINISH] = keep_encoder
        monkeypatch.setattr(exchanges, "run", at)

    return begin


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("select", ["last", "best"])
def test_a_sum_that_too_many_silos_reject_is_undone_and_its_round_run_again(job, rejects, tmp_path, number, select):
    """Also the last one, which they reject when they would keep the encoder or tell its losses."""
    line, exchanges, rounds = job
    rounds._plan = rounds._plan.model_copy(update={"select": select})
    rejects(exchanges, line, lambda each: each == number)
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    while not rounds._finish(exchanges, record):
        rounds._rounds(exchanges, record)
    told = record.content["rounds"]
    assert next(one for one in told if one["exchange"] == number)["why"] == REJECTED
    assert [one["round"] for one in told if one["outcome"] == "sum"] == [0, 1, 2]
    assert record.content["state"] == "finished"


@pytest.mark.parametrize("first", [2, 3])
def test_silos_that_reject_again_and_again_end_the_job_with_the_weights_of_before(job, rejects, tmp_path, first):
    line, exchanges, rounds = job
    rejects(exchanges, line, lambda number: number >= first)
    record = JobRecord(tmp_path / "rounds.json", "job", {})

    def go():
        rounds._rounds(exchanges, record)
        while not rounds._finish(exchanges, record):
            rounds._rounds(exchanges, record)

    with pytest.raises(
        RoundRefused, match=r"the last because too many silos reject the sum of exchange \d+, of silo-00, silo"
    ):
        go()
    assert rounds._ledger.sums(UPDATE) == first - 1  # nothing is left that they rejected when the job is resumed
    assert rounds._ledger.can_be_undone is None


@pytest.mark.parametrize("content", [UPDATE, NUMBERS])
def test_nonsense_in_the_last_sum_is_taken_back_when_the_silos_would_keep_the_encoder(job, fails, tmp_path, content):
    line, exchanges, rounds = job
    if content == NUMBERS:
        rounds._plan = rounds._plan.model_copy(update={"select": "best"})
    last = 3 if content == UPDATE else 4
    fails(exchanges, line, lambda number: number == last)
    line.others[words.TASK_FINISH] = lambda _silo, _data, reply: reply.update({words.REPORT: {"encoder_version": "a" * 32}})
    record = JobRecord(tmp_path / "rounds.json", "job", {})
    rounds._rounds(exchanges, record)
    assert rounds._ledger.last(content).number == last
    assert not rounds._finish(exchanges, record)
    assert rounds._ledger.read(last).void
    told = record.content["rounds" if content == UPDATE else "statistics"][-1]
    assert (told["outcome"], told["why"]) == ("void", UNOPENED)
    rounds._rounds(exchanges, record)
    assert rounds._finish(exchanges, record)
    assert record.content["state"] == "finished"
    assert len(record.content["finish"]["accepted"]) == 4


VERSIONS = {"x": "a" * 32, "y": "b" * 32}


@pytest.fixture
def finish(tmp_path):
    """End a job whose silos report what is given, and return its record, or raise what fails it."""

    def go(reports, min_silos=2):
        answers, removed = Answers(missing={}), []

        def ask(_task, _data, silos, _patience, *, take):
            for silo in silos:
                try:
                    take(silo, {words.REPORT: {"encoder_version": reports[silo]}})
                except UpdateRefused as error:
                    answers.refused[silo] = {"code": error.code, "public": error.public}
            return answers

        rounds, record = TrainingRounds(), JobRecord(tmp_path / "rounds.json", "job", {})
        rounds._plan = TrainingPlan(min_silos=min_silos)
        sums = rounds._plan.rounds
        rounds._ledger = SimpleNamespace(next_round=3, remove=lambda: removed.append(True), sums=lambda _content: sums)
        roll = SimpleNamespace(members=sorted(reports), position=lambda _silo: 3)
        rounds._line = SimpleNamespace(roll=roll, ask=ask, tell=lambda _text: None)
        try:
            exchanges = SimpleNamespace(
                bring_up=lambda _number: None, last=dict, take_back=lambda *_: False, rejected=lambda *_, **__: None
            )
            rounds._finish(exchanges, record)
        finally:
            assert removed == ([True] if record.content["state"] == "finished" else [])
        return record.content

    return go


def test_a_silo_that_ends_with_another_encoder_is_named_and_fails_nobody(finish):
    record = finish({"a": VERSIONS["x"], "b": VERSIONS["y"], "c": VERSIONS["x"]})
    assert record["state"] == "finished"
    assert record["finish"]["encoder_versions"] == {"a": VERSIONS["x"], "c": VERSIONS["x"]}
    assert record["finish"]["accepted"] == ["a", "c"]
    assert record["finish"]["quarantined"]["b"]["code"] == "other-encoder"


@pytest.mark.parametrize(
    ("sums", "personal", "rounds"), [(40, "tuned", 0), (36, "tuned", 4), (12, "tuned", 10), (12, "none", 0)]
)
def test_who_ended_early_has_the_time_of_the_rounds_that_its_copy_still_needs(sums, personal, rounds):
    job = TrainingRounds()
    plan = {"rounds": 40, "select": "best", "patience": 5, "personal": personal, "round_deadline_s": 700}
    job._plan = TrainingPlan.checked(plan | {"straggler_wait_s": 200})
    job._ledger = SimpleNamespace(sums=lambda _content: sums)
    patience = job._until_kept()
    assert (patience.deadline_s, patience.straggler_s) == (max(600, rounds * 700), max(60, rounds * 200))


@pytest.mark.parametrize("poison", [None, 5, "", "A" * 32, "a" * 33, ["a" * 32], "a" * 31 + "\n"])
def test_a_silo_that_names_no_encoder_is_refused(finish, poison):
    record = finish({"a": VERSIONS["x"], "b": poison, "c": VERSIONS["x"]})
    assert record["finish"]["quarantined"]["b"]["code"] == "update-refused"
    assert set(record["finish"]["encoder_versions"]) == {"a", "c"}


@pytest.mark.parametrize(
    ("reports", "min_silos"),
    [
        ({"a": "x", "b": "y"}, 2),
        ({"a": "x", "b": "y", "c": "x", "d": "y"}, 2),
        ({"a": "x", "b": "y", "c": "x"}, 3),
    ],
)
def test_too_few_with_one_encoder_fail_the_job(finish, reports, min_silos):
    with pytest.raises(UpdateRefused, match="different encoders"):
        finish({silo: VERSIONS[one] for silo, one in reports.items()}, min_silos)
