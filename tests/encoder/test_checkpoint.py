import json
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.vectors import write_vector
from silo_app.errors import CheckpointInvalid, EncoderUnknown, NotReady

CARD = {"kind": "federated", "job": "j1", "silos": {"alpha": 36}}


@pytest.fixture
def vector(spec):
    return to_vector(build(spec, 1))


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def test_what_is_saved_comes_back_with_its_card(models, spec, vector):
    version = checkpoint.save(models, spec, vector, CARD)
    kept = checkpoint.load(models, version)
    assert kept.spec == spec
    assert np.array_equal(kept.vector, vector)
    assert kept.card["job"] == "j1"
    assert kept.card["preprocessing"]
    assert "Not a medical device" in kept.card["intended_use"]


def test_the_version_follows_weights_and_spec(models, spec, vector):
    versions = {
        checkpoint.save(models, spec, vector, CARD),
        checkpoint.save(models, spec, np.nextafter(vector, 1), CARD),
        checkpoint.save(models, spec.model_copy(update={"findings": spec.findings[::-1]}), vector, CARD),
    }
    assert len(versions) == 3
    assert set(checkpoint.versions(models)) == versions


def test_saving_twice_is_one_version_and_keeps_the_first_card(models, spec, vector):
    first = checkpoint.save(models, spec, vector, CARD)
    assert checkpoint.save(models, spec, vector, CARD | {"job": "j2"}) == first
    assert checkpoint.load(models, first).card["job"] == "j1"


def test_the_last_job_that_left_the_silo_something_of_its_own_is_what_the_card_names(models, spec, vector):
    """Jobs that differ only in what silos have for themselves end with the same shared weights."""
    version = checkpoint.save(models, spec, vector, CARD)
    for number, job in enumerate(("j2", "j3"), start=1):
        own = np.full(len(vector), number, np.float32)
        assert checkpoint.save(models, spec, vector, CARD | {"job": job}, own) == version
        kept = checkpoint.load(models, version)
        assert (kept.card["job"], kept.personal.tolist()) == (job, own.tolist())
    checkpoint.save(models, spec, vector, CARD | {"job": "j4"})
    kept = checkpoint.load(models, version)
    assert (kept.card["job"], kept.personal[0]) == ("j3", 2)


def test_files_are_private(models, spec, vector):
    version = checkpoint.save(models, spec, vector, CARD)
    for path in [*(models / version).iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((models / version).stat().st_mode) == 0o700


def test_a_failed_save_leaves_nothing(models, spec, vector, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.durable, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(models, spec, vector, CARD)
    assert not list(models.iterdir())


def test_the_current_version(models, spec, vector):
    with pytest.raises(NotReady, match="no encoder yet"):
        checkpoint.current_version(models)
    version = checkpoint.save(models, spec, vector, CARD)
    with pytest.raises(NotReady, match="none of this silo's encoders is in use") as caught:
        checkpoint.current_version(models)  # trained or adopted by the silo itself: nothing takes it into use
    assert "silo model use VERSION" in caught.value.remedy
    checkpoint.set_current(models, version)
    assert checkpoint.current_version(models) == version


def test_a_silo_without_encoders_holds_none(models):
    assert checkpoint.versions(models) == []


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def edit(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: flip(f / "encoder.safetensors"), "the weights are not those of this version"),
        (lambda f: (f / "encoder.safetensors").write_bytes(b"\x80\x04K\x01."), "the weights cannot be read"),
        (lambda f: (f / "encoder.safetensors").unlink(), "the weights cannot be read"),
        (lambda f: write_vector(f / "encoder.safetensors", np.zeros(3, np.float32)), "the weights are not those"),
        (lambda f: (f / "card.json").write_text("{"), "the model card is missing or cannot be read"),
        (lambda f: (f / "card.json").write_text("[]"), "the model card is not an object"),
        (lambda f: (f / "card.json").unlink(), "the model card is missing or cannot be read"),
        (lambda f: edit(f / "card.json", spec={"backbone": "resnet"}), "the model card has no valid spec"),
        (lambda f: edit(f / "card.json", preprocessing="other/1"), "it was made for preprocessing other/1"),
    ],
)
def test_a_damaged_checkpoint_is_refused(models, spec, vector, damage, problem):
    version = checkpoint.save(models, spec, vector, CARD)
    damage(models / version)
    with pytest.raises(CheckpointInvalid, match=problem):
        checkpoint.load(models, version)


@pytest.mark.parametrize("version", ["", "../secret", "f" * 31, "F" * 32, "current"])
def test_what_is_no_version_is_refused_before_any_file_is_opened(models, version):
    with pytest.raises(CheckpointInvalid, match="is not an encoder version"):
        checkpoint.load(models, version)


def test_the_first_digits_name_a_version(models, tmp_path, spec, vector):
    version = checkpoint.save(models, spec, vector, CARD)
    elsewhere = checkpoint.save(tmp_path / "other", spec, np.nextafter(vector, 1), CARD)
    assert checkpoint.named(version[:12], models) == checkpoint.named(version, models) == version
    assert checkpoint.named(elsewhere[:8].upper(), models, tmp_path / "other") == elsewhere


@pytest.mark.parametrize("text", ["zzz", "../..", "", "0123456", "0" * 32])
def test_a_version_that_is_not_held_is_no_damaged_one(models, spec, vector, text):
    version = checkpoint.save(models, spec, vector, CARD)
    with pytest.raises(EncoderUnknown, match="no encoder here begins") as refused:
        checkpoint.named(text or version[:7], models)
    assert "silo model list" in refused.value.remedy
    assert "Remove" not in refused.value.remedy


def test_two_versions_that_begin_alike_are_not_guessed_between(models, spec, vector):
    version = checkpoint.save(models, spec, vector, CARD)
    shutil.copytree(models / version, models / (version[:10] + "f" * 22))
    with pytest.raises(EncoderUnknown, match="more than one encoder"):
        checkpoint.named(version[:8], models)
