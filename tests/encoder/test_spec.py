import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from silo_app.cases import Finding
from silo_app.encoder.checkpoint import version_of
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import ConfigInvalid

JOB = Path(__file__).parents[2] / "jobs" / "train"


def test_defaults_are_the_designs():
    spec = EncoderSpec()
    assert (spec.backbone, spec.input_size, spec.embedding_dim) == ("densenet121", 64, 256)
    assert len(spec.findings) == 18
    assert Finding.NO_FINDING not in spec.findings


def test_a_spec_survives_json(spec):
    assert EncoderSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "resnet"},
        {"input_size": 65},
        {"input_size": 0},
        {"embedding_dim": 0},
        {"findings": []},
        {"findings": ["No Finding"]},
        {"findings": ["Mass", "Mass"]},
        {"findings": ["Cough"]},
        {"depth": 3},
    ],
)
def test_a_wrong_spec_is_refused(wrong):
    with pytest.raises(ValidationError):
        EncoderSpec.model_validate(wrong)


def test_an_encoder_that_keeps_looks_has_the_digest_of_older_releases():
    assert "looks" not in EncoderSpec().model_dump(mode="json")
    assert EncoderSpec.model_validate(EncoderSpec().model_dump(mode="json")) == EncoderSpec()


def test_removing_looks_makes_another_encoder():
    kept, removed = (EncoderSpec(embedding_dim=8, looks=looks) for looks in ("kept", "removed"))
    assert EncoderSpec.model_validate_json(removed.model_dump_json()) == removed
    weights = np.zeros(3, np.float32)
    assert version_of(kept, weights) != version_of(removed, weights)


def test_without_a_shared_head_looks_cannot_be_removed():
    with pytest.raises(ConfigInvalid, match='encoder\\.looks must be "kept"'):
        TrainingPlan.checked({"personal": "head", "encoder": {"looks": "removed"}})


def test_the_default_job_is_a_valid_plan_that_removes_looks():
    content = json.loads((JOB / "app" / "config" / "config_fed_server.json").read_text())
    plan = TrainingPlan.checked(content["workflows"][0]["args"]["plan"])
    assert (plan.encoder.looks, plan.averaging.method) == ("removed", "momentum")
