import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from silo_app.cases import Finding
from silo_app.encoder import checkpoint
from silo_app.encoder.adopt import adopt
from silo_app.encoder.model import build, to_vector
from silo_app.errors import CheckpointInvalid

HEAD = 2 * 16 + 2


@pytest.fixture
def state(spec):
    return build(spec, 5).state_dict()


@pytest.mark.parametrize("kind", ["safetensors", "pt", "nested"])
def test_the_same_file_gives_the_same_version_in_every_silo(spec, state, tmp_path, kind):
    file = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "nested" else state, file)
    versions = [adopt(tmp_path / silo, spec, file) for silo in ("alpha", "beta")]
    assert versions[0] == versions[1]
    kept = checkpoint.load(tmp_path / "alpha", versions[0])
    np.testing.assert_array_equal(kept.vector, to_vector(build(spec, 5)))
    assert kept.card["kind"] == "adopted"
    assert len(kept.card["source_sha256"]) == 64
    assert kept.card["findings_head"] == "taken"


def test_a_head_of_other_findings_begins_anew(spec, state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    other = spec.model_copy(update={"findings": (Finding.PNEUMONIA,)})
    kept = checkpoint.load(tmp_path / "models", adopt(tmp_path / "models", other, tmp_path / "weights.safetensors"))
    assert kept.card["findings_head"] == "new"
    np.testing.assert_array_equal(kept.vector[:-17], to_vector(build(spec, 5))[:-HEAD])


class Harmful:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda state: {name: one for name, one in state.items() if "embedding" not in name}, "2 of the"),
        (lambda state: state | {"embedding.bias": torch.zeros(3)}, r"1 of the .* embedding\.bias"),
        (lambda state: state | {"embedding.bias": torch.full((16,), float("nan"))}, "not finite"),
        (lambda state: state | {"embedding.bias": torch.full((16,), 1e300, dtype=torch.float64)}, "not finite"),
        (lambda state: state | {"embedding.bias": torch.zeros(16, dtype=torch.int64)}, "not finite"),
        (lambda state: [1, 2], "not a dictionary of names and tensors"),
        (lambda state: {"a": 1}, "not a dictionary of names and tensors"),
    ],
)
def test_what_is_not_this_network_is_refused(spec, state, tmp_path, make, why):
    torch.save(make(state), tmp_path / "weights.pt")
    with pytest.raises(CheckpointInvalid, match=why):
        adopt(tmp_path / "models", spec, tmp_path / "weights.pt")
    assert checkpoint.versions(tmp_path / "models") == []


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_code_in_a_file_is_never_run(spec, tmp_path, name, capsys):
    (tmp_path / name).write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointInvalid, match="not a file of tensors"):
        adopt(tmp_path / "models", spec, tmp_path / name)
    assert "must never run" not in capsys.readouterr().out


def test_a_file_that_is_not_there_is_named(spec, tmp_path):
    with pytest.raises(CheckpointInvalid, match="cannot be read"):
        adopt(tmp_path / "models", spec, tmp_path / "none.pt")
