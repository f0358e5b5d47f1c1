"""A silo's side of a survey: what a job asks beyond the fixed tables is not answered, and nothing ends everybody's job."""

import json
from types import SimpleNamespace

import pytest
from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.statistics_spec import Bin, Histogram, HistogramType, StatisticConfig
from nvflare.app_common.app_constant import StatisticsConstants as Words
from nvflare.app_common.statistics.statisitcs_objects_decomposer import fobs_registration
from nvflare.fuel.utils import fobs

from silo_app.errors import MessageInvalid
from silo_app.flare import survey, words
from silo_app.flare.round_trip import Answers
from silo_app.flare.survey import DATASET, SiloSurvey, SurveyEverywhere
from silo_app.privacy.questions import TABLES
from silo_app.privacy.survey import Released

COUNTS = {table.name: [40 * table.parts] * len(table.labels) for table in TABLES} | {"patients": [90], "sex": [60, 30, 0, 0]}
RELEASED = Released(counts=COUNTS, min_count=11, epsilon=5.0, spent=5.0, day="2026-11-23")


@pytest.fixture
def context(make_silo):
    home = make_silo(survey={"join": False})
    fl_ctx = FLContext()
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, SimpleNamespace(get_root_dir=lambda: str(home.kit)))
    fl_ctx.get_job_id = lambda: "job"
    fl_ctx.get_identity_name = lambda *_, **__: "silo"
    return fl_ctx


@pytest.fixture
def silo(context, monkeypatch):
    """A silo that releases COUNTS; returns a function that sends it a task and returns reply and statistics."""
    monkeypatch.setattr(survey, "release", lambda _home, *, job: RELEASED)
    executor = SiloSurvey()
    executor.initialize(context)
    fobs_registration()

    def ask(statistics, **inputs):
        task = Shareable()
        task[Words.STATISTICS_TASK_KEY] = Words.STATS_2nd_STATISTICS
        task[Words.STATS_TARGET_STATISTICS] = fobs.dumps([StatisticConfig(k, v) for k, v in statistics.items()])
        for name, value in inputs.items():
            task[name] = value
        reply = executor.execute(Words.FED_STATS_TASK, task, context, Signal())
        return reply, fobs.loads(from_shareable(reply).data[Words.STATS_2nd_STATISTICS])

    return ask


def histogram_request(bins=None, low=0, high=None):
    """The request that our controller makes, with the ranges of every table, or other ones."""
    asked = {t.name: {"bins": bins or len(t.labels), "range": [low, high or len(t.labels)]} for t in TABLES}
    ends = {DATASET: {t.name: (high or len(t.labels)) for t in TABLES}}
    return {Words.STATS_HISTOGRAM: asked}, {"min": {DATASET: dict.fromkeys(ends[DATASET], low)}, "max": ends}


def test_the_fixed_tables_are_answered(silo):
    asked, ends = histogram_request()
    reply, statistics = silo(asked, **ends)
    assert reply.get_return_code() == ReturnCode.OK
    told = {name: [one.sample_count for one in h.bins] for name, h in statistics["histogram"][DATASET].items()}
    assert told["sex"] == [60, 30, 0, 0]
    assert set(told) == {table.name for table in TABLES}


@pytest.mark.parametrize(("bins", "low", "high"), [(1000, 0, None), (None, 0, 1), (None, 1, None), (1, 0, None)])
def test_other_ranges_are_not_answered(silo, bins, low, high):
    asked, ends = histogram_request(bins, low, high)
    _, statistics = silo(asked, **ends)
    told = statistics["histogram"][DATASET]
    allowed = {
        t.name for t in TABLES if (bins or len(t.labels), low, high or len(t.labels)) == (len(t.labels), 0, len(t.labels))
    }
    assert set(told) == allowed <= {"patients"}


@pytest.mark.parametrize("name", ["sum", "mean", "var", "stddev", "quantile", "max", "min"])
def test_no_other_statistic_is_answered(silo, name):
    _, statistics = silo({name: {"*": [50]}} if name == "quantile" else {name: {}})
    assert not any(value is not None for value in statistics[name][DATASET].values())


def test_nvflares_cleansers_stand_behind_our_rule(silo, monkeypatch):
    monkeypatch.setattr(survey, "release", None)
    few = COUNTS | {"sex": [3, 4, 0, 0]}
    monkeypatch.setattr(survey, "release", lambda _home, *, job: Released(**{**_fields(), "counts": few}))
    asked, ends = histogram_request()
    _, statistics = silo(asked, **ends)
    assert "sex" not in statistics["histogram"][DATASET]
    assert "age" in statistics["histogram"][DATASET]


def _fields():
    return {name: getattr(RELEASED, name) for name in ("counts", "min_count", "epsilon", "spent", "day")}


def test_the_terms_are_told_first(context, monkeypatch):
    monkeypatch.setattr(survey, "release", lambda _home, *, job: RELEASED)
    executor = SiloSurvey()
    executor.initialize(context)
    task = Shareable()
    task[Words.STATS_TARGET_STATISTICS] = fobs.dumps([StatisticConfig("histogram", {"*": {"bins": 2, "range": [0, 9]}})])
    reply = executor.execute(Words.FED_STATS_PRE_RUN, task, context, Signal())
    assert dict(from_shareable(reply).data) == {"min_count": 11, "epsilon": 5.0, "spent": 5.0, "day": "2026-11-23"}


def test_a_refusal_is_an_answer_that_ends_nobodys_job(context):
    executor = SiloSurvey()
    executor.initialize(context)
    reply = executor.execute(Words.FED_STATS_PRE_RUN, Shareable(), context, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert reply[words.REFUSAL]["code"] == "release-refused"


def test_a_bug_of_ours_is_an_answer_too(context, monkeypatch):
    monkeypatch.setattr(survey, "release", lambda _home, *, job: 1 / 0)
    executor = SiloSurvey()
    executor.initialize(context)
    reply = executor.execute(Words.FED_STATS_TASK, Shareable(), context, Signal())
    assert reply.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert reply[words.REFUSAL]["code"] == "internal"


def terms_reply(**changed):
    given = {"min_count": 11, "epsilon": 5.0, "spent": 5.0, "day": "2026-11-23"} | changed
    return DXO(DataKind.STATISTICS, data=given).to_shareable()


@pytest.mark.parametrize(
    "changed",
    [{"min_count": "11"}, {"epsilon": object()}, {"spent": None}, {"day": "x" * 100}, {"more": 1}, {"day": {"a": [1]}}],
)
def test_terms_that_cannot_be_written_down_are_refused(changed):
    survey._require_terms("a", terms_reply())
    survey._require_terms("a", terms_reply(epsilon=None))
    with pytest.raises(MessageInvalid):
        survey._require_terms("a", terms_reply(**changed))


def tables_reply(statistics):
    data = {Words.STATISTICS_TASK_KEY: Words.STATS_2nd_STATISTICS, Words.STATS_2nd_STATISTICS: fobs.dumps(statistics)}
    return DXO(DataKind.STATISTICS, data=data).to_shareable()


def table(*counts, first=0):
    return Histogram(HistogramType.STANDARD, [Bin(n, n + 1, count) for n, count in enumerate(counts, first)])


def test_what_a_silo_of_ours_tells_is_readable(silo):
    asked, ends = histogram_request()
    reply, _ = silo(asked, **ends)
    survey._require_tables("a", reply)
    ends = {table.name: {"bins": len(table.labels), "range": [0, len(table.labels)]} for table in TABLES}
    reply, _ = silo({Words.STATS_COUNT: {}, Words.STATS_FAILURE_COUNT: {}, Words.STATS_MIN: ends, Words.STATS_MAX: ends})
    survey._require_tables("a", reply)


@pytest.mark.parametrize(
    "statistics",
    [
        {"histogram": {DATASET: {"sex": table(1, 2, 3)}}},
        {"histogram": {DATASET: {"sex": table(1, 2, 3, 4, first=1)}}},
        {"histogram": {DATASET: {"sex": table(1, 2, 3, "4")}}},
        {"histogram": {DATASET: {"sex": table(1, 2, 3, -4)}}},
        {"histogram": {DATASET: {"sex": 5}}},
        {"histogram": {DATASET: {"names": table(1)}}},
        {"histogram": {"others": {"sex": table(1, 2, 3, 4)}}},
        {"count": {DATASET: {"sex": "many"}}},
        {"count": {DATASET: {"sex": 0.5}}},
        {"mean": {DATASET: {"sex": 1}}},
        {"min": {DATASET: {"sex": 1}}},
        {"max": {DATASET: {"sex": 1000}}},
    ],
)
def test_statistics_over_which_the_sum_would_stumble_are_refused(statistics):
    fobs_registration()
    with pytest.raises(MessageInvalid):
        survey._require_tables("a", tables_reply(statistics))


def test_one_silos_poison_costs_its_own_answer(context, monkeypatch):
    """The server's callback is given what can be read, and no other reply."""
    fobs_registration()
    good = tables_reply({"histogram": {DATASET: {"sex": table(1, 2, 3, 4)}}})
    replies = {"a": good, "b": tables_reply({"histogram": {DATASET: {"sex": table(1)}}}), "c": Shareable()}

    def ask_each(_controller, _name, _data, silos, _deadline_s, _ctx, _abort, take):
        answers = Answers()
        for silo in silos:
            try:
                take(silo, replies[silo])
                answers.accepted[silo] = replies[silo]
            except Exception as error:  # noqa: BLE001  (as `ask` does)
                answers.refused[silo] = {"code": type(error).__name__, "public": ""}
        return answers

    monkeypatch.setattr(survey, "ask_each", ask_each)
    controller, heard = SurveyEverywhere(), []
    controller._asked = sorted(replies)
    task = Task(Words.FED_STATS_TASK, Shareable(), result_received_cb=lambda client_task, fl_ctx: heard.append(client_task))
    controller.broadcast_and_wait(task, context, Signal())
    assert [(one.client.name, one.result) for one in heard] == [("a", good)]
    assert set(controller._refused) == {"b", "c"}


def test_too_few_answers_fail_the_job_and_are_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "job_folder", lambda _ctx: tmp_path)
    controller, panics = SurveyEverywhere(min_silos=2), []
    controller.system_panic = lambda reason, _ctx: panics.append(reason)
    controller.log_info = lambda *_: None
    controller._asked = ["a", "b", "c"]
    controller._refused = {"b": {"code": "release-refused", "public": "No."}}
    controller.client_statistics = {"histogram": {"a": {DATASET: {}}}}
    controller.post_fn("fed_stats", FLContext())
    record = json.loads((tmp_path / "survey.json").read_text())
    assert (record["silos"], record["refused"], record["missing"]) == (
        {},
        {"b": {"code": "release-refused", "public": "No."}},
        ["a", "c"],
    )
    assert len(panics) == 1
