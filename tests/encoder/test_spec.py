import pytest
from pydantic import ValidationError

from silo_app.cases import Finding
from silo_app.encoder.spec import EncoderSpec


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
