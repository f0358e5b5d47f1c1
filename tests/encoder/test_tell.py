"""A silo's answer to an evaluation: the policy decides, whatever the trainer found, and the audit log comes first."""

import json

import pytest

from silo_app import config
from silo_app.audit.recent import newest_records
from silo_app.config import EvaluationSettings
from silo_app.encoder.evaluation_answer import SiloAnswer
from silo_app.encoder.tell import EvaluationPlan, Telling, require_allowed
from silo_app.encoder.worker import OPERATIONS, Worker
from silo_app.errors import ConfigInvalid, MessageInvalid, NotReady, ReleaseRefused
from tests.encoder.evaluation_answers import answer, content
from tests.encoder.test_examine import keep


class Found:
    """A trainer that has found out."""

    def __init__(self, found):
        self.found, self.asked, self.closed = found, [], False

    def request(self, op, **parameters):
        self.asked.append((op, parameters))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def close(self):
        self.closed = True


def tell(make_silo, tmp_path, found, plan=None, **policy):
    home = make_silo(evaluation={"min_patients": 5, "groups": ["sex"]} | policy)
    trainer = Found(found)
    telling = Telling(home, job="job", folder=tmp_path / "job", trainer=trainer)
    return home, trainer, lambda: telling.answer(plan or EvaluationPlan())


def test_an_answer_is_in_the_audit_log_before_it_leaves(make_silo, tmp_path):
    home, trainer, ask = tell(make_silo, tmp_path, content(), EvaluationPlan(encoder="b" * 32, floors=False))
    assert ask() == answer()
    assert trainer.asked == [("examine", {"version": "b" * 32, "floors": False})]
    assert trainer.closed
    last = next(newest_records(home.audit))
    assert (last["event"], last["job"], last["encoder"], last["groups"]) == ("evaluation", "job", "a" * 32, ["sex F"])


def test_a_silo_that_takes_no_part_loads_nothing(make_silo, tmp_path):
    home, trainer, ask = tell(make_silo, tmp_path, content(), join=False)
    with pytest.raises(ReleaseRefused, match="takes part in no evaluation"):
        ask()
    assert trainer.asked == []
    assert next(newest_records(home.audit))["event"] == "evaluation-refusal"


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (content(min_patients=4), ReleaseRefused),
        (content(groups=[{"by": "device", "value": "x", "findings": {}, "retrieval": {"classes": {}}}]), ReleaseRefused),
        (content(held_out_patients=1), MessageInvalid),
        (content(views=["a"]), MessageInvalid),
        (NotReady("no encoder", remedy="Train."), NotReady),
    ],
)
def test_what_the_policy_does_not_allow_does_not_leave(make_silo, tmp_path, found, kind):
    home, trainer, ask = tell(make_silo, tmp_path, found)
    with pytest.raises(kind):
        ask()
    assert trainer.closed
    record = next(newest_records(home.audit))
    assert (record["event"], record["code"]) == ("evaluation-refusal", kind.code)


def test_a_stricter_policy_never_tells_more():
    for least in range(2, 8):
        for groups in ((), ("sex",), ("sex", "device")):
            policy = EvaluationSettings(min_patients=least, groups=groups)
            allowed = least <= 5 and "sex" in groups
            if allowed:
                assert require_allowed(answer(), policy)
            else:
                with pytest.raises(ReleaseRefused):
                    require_allowed(answer(), policy)


def test_a_job_chooses_the_encoder_and_nothing_of_the_questions():
    assert EvaluationPlan.checked({"encoder": "c" * 32}).encoder == "c" * 32
    with pytest.raises(ConfigInvalid, match=r"encoder: .*\nunknown setting specificity\nunknown setting k"):
        EvaluationPlan.checked({"encoder": "../x", "specificity": 0.5, "k": 1})


class Working:
    """A trainer whose child is this process."""

    def __init__(self, kit, folder):
        self.worker = Worker(kit, folder)

    def request(self, op, **parameters):
        assert op in OPERATIONS
        answer = getattr(self.worker, op)(lambda *_: None, **json.loads(json.dumps(parameters)))
        return json.loads(json.dumps(answer))

    def close(self):
        pass


def test_what_the_trainer_finds_out_is_told(fill_silo, spec, tmp_path):
    home = fill_silo("alpha", views=64, seed=1)
    (home.kit / "local" / "silo.yaml").write_text("name: alpha\nevaluation: {min_patients: 4, groups: [device]}\n")
    home = config.load(home.kit)
    version = keep(home, spec)
    trainer = Working(home.kit, tmp_path)
    told = Telling(home, job="job", folder=tmp_path / "job", trainer=trainer).answer(EvaluationPlan(floors=False))
    assert told.encoder == version
    assert SiloAnswer.checked(json.loads(told.model_dump_json())) == told
    assert set(told.findings) == {"Pneumonia"}
    assert [one.value for one in told.groups] == ["Maker Model"]
