"""`jobs/evaluate` at its two ends: what a silo sends is checked where it arrives, and nothing ends everybody's job."""

import json
from types import SimpleNamespace

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app.encoder.evaluation_record import read_record
from silo_app.errors import SiloscopeError
from silo_app.flare import evaluation, words
from silo_app.flare.evaluation import EvaluateEverywhere, SiloEvaluation
from silo_app.flare.round_trip import Answers
from tests.encoder.evaluation_answers import answer, content


@pytest.fixture
def context(make_silo, tmp_path):
    home = make_silo(evaluation={"join": False})
    fl_ctx = FLContext()
    workspace = SimpleNamespace(get_root_dir=lambda: str(home.kit), get_run_dir=lambda _: str(tmp_path / "job"))
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, workspace)
    fl_ctx.set_prop(FLContextKey.RUNNER, SimpleNamespace())
    fl_ctx.get_job_id = lambda: "job"
    return fl_ctx


def task(plan="{}"):
    shareable = Shareable()
    shareable[words.PLAN] = plan
    return shareable


def test_a_silo_that_takes_no_part_says_so(context):
    reply = SiloEvaluation().execute(words.TASK_EVALUATE, task(), context, Signal())
    assert reply[words.REFUSAL] == {"code": "release-refused", "public": "The silo's policy does not allow this."}


def test_a_plan_that_asks_for_more_is_refused(context):
    reply = SiloEvaluation().execute(words.TASK_EVALUATE, task('{"specificity": 0.5}'), context, Signal())
    assert reply[words.REFUSAL]["code"] == "config-invalid"


def test_a_bug_of_ours_is_an_answer_too(context):
    reply = SiloEvaluation().execute(words.TASK_EVALUATE, Shareable(), context, Signal())
    assert reply[words.REFUSAL]["code"] == "internal"


def test_the_child_ends_with_the_job(context, monkeypatch):
    closed = []
    telling = SimpleNamespace(answer=lambda _plan: answer(), close=lambda: closed.append(True))
    monkeypatch.setattr(evaluation, "Telling", lambda *_, **__: telling)
    silo = SiloEvaluation()
    silo.handle_event(EventType.END_RUN, context)
    reply = silo.execute(words.TASK_EVALUATE, task(), context, Signal())
    assert json.loads(reply[words.REPORT]) == answer().model_dump(mode="json")
    silo.handle_event(EventType.ABORT_TASK, context)
    assert closed == [True]


@pytest.fixture
def run(context, monkeypatch, tmp_path):
    """Run the server's side with replies by silo, and return the record and why the job failed."""
    (tmp_path / "job").mkdir()

    def go(replies, missing=None, plan=None):
        answers = Answers(missing=missing or {})

        def ask(_controller, name, data, silos, _deadline_s, _ctx, _abort, take):
            assert (name, json.loads(data[words.PLAN])["floors"]) == (words.TASK_EVALUATE, True)
            assert silos == sorted([*replies, *answers.missing])
            for silo, told in replies.items():
                reply = make_reply(ReturnCode.OK)
                reply[words.REPORT] = json.dumps(told)
                try:
                    take(silo, reply)
                except SiloscopeError as error:
                    answers.refused[silo] = {"code": error.code, "public": error.public}
            return answers

        monkeypatch.setattr(evaluation, "ask_each", ask)
        monkeypatch.setattr(evaluation, "silos_of", lambda _ctx: sorted([*replies, *answers.missing]))
        controller, panics = EvaluateEverywhere(plan), []
        controller.system_panic = lambda reason, _ctx: panics.append(reason)
        controller.log_info = lambda *_: None
        controller.start_controller(context)
        controller.control_flow(Signal(), context)
        return panics

    return go


def test_the_record_names_who_told_what_and_who_did_not(run, tmp_path):
    assert run({"a": content(), "b": content(held_out_patients=1)}, {"c": "late"}) == []
    record = read_record(tmp_path / "job" / "evaluation.json")
    assert set(record.silos) == {"a"}
    assert record.refused == {"b": "The message is malformed or of another version."}
    assert record.missing == {"c": "late"}
    assert json.loads((tmp_path / "job" / "evaluation.json").read_text())["pooled"]["silos"] == ["a"]


def test_too_few_answers_fail_the_job_and_are_written_down(run, tmp_path):
    (panic,) = run({"a": content()}, {"b": "gone"}, {"min_silos": 2})
    assert "only 1 silos answered the evaluation" in panic
    assert set(read_record(tmp_path / "job" / "evaluation.json").silos) == {"a"}


def test_a_wrong_plan_ends_the_job_before_anybody_is_asked(run, tmp_path):
    (panic,) = run({}, plan={"rounds": 3})
    assert "unknown setting rounds" in panic
    assert not (tmp_path / "job" / "evaluation.json").exists()
