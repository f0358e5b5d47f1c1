"""An encoder version made of weights from elsewhere: a file that the hospital trusts, read as tensors and nothing else.

safetensors, or what `torch.save` wrote of a state dict, read with `weights_only`: neither runs code. All silos that
adopt the same file for the same spec get the same version, so a job can start from it (`start` of the plan).
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors

from silo_app.cases import EncoderVersion
from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CheckpointInvalid

__all__ = ["adopt"]

_HEAD = "findings."


def adopt(models: Path, spec: EncoderSpec, file: Path) -> EncoderVersion:
    """Keep the weights in `file` as an encoder version of `spec`; its card has the file's SHA-256.

    Every tensor of the network must be there under its name, as finite floats of its shape; a findings head of other
    findings is left out, and begins anew. Raises `CheckpointInvalid`.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _invalid(file, f"it cannot be read: {error.strerror}") from None
    given = _tensors(file, content)
    model = build(spec, seed=0)
    state = model.state_dict()
    fitting = {name for name, tensor in state.items() if name in given and given[name].shape == tensor.shape}
    missing = sorted(name for name in set(state) - fitting if not name.startswith(_HEAD))
    if missing:
        problem = f"{len(missing)} of the {len(state)} tensors of a {spec.backbone} are not in it, or of another shape"
        raise _invalid(file, f"{problem}: {', '.join(missing[:3])}, ...")
    head = {name for name in state if name.startswith(_HEAD)}
    taken = fitting if head <= fitting else fitting - head
    floats = {name: given[name].float() for name in taken if given[name].is_floating_point()}
    if floats.keys() != taken or not all(bool(torch.isfinite(one).all()) for one in floats.values()):
        raise _invalid(file, "it has values that are not finite numbers in float32")
    model.load_state_dict(state | floats)
    card = {"kind": "adopted", "source": file.name, "source_sha256": hashlib.sha256(content).hexdigest()}
    return checkpoint.save(models, spec, to_vector(model), card | {"findings_head": "taken" if head <= taken else "new"})


def _tensors(file: Path, content: bytes) -> dict[str, torch.Tensor]:
    try:
        given = load_safetensors(content) if file.suffix == ".safetensors" else _unpickled(file)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  (torch's reader fails in many ways at what is no file of its own)
        raise _invalid(file, f"it is not a file of tensors ({type(error).__name__})") from None
    if isinstance(given, dict) and isinstance(given.get("state_dict"), dict):
        given = given["state_dict"]
    if not isinstance(given, dict) or not all(isinstance(one, torch.Tensor) for one in given.values()):
        raise _invalid(file, "it is not a dictionary of names and tensors")
    return {str(name): tensor for name, tensor in given.items()}


def _unpickled(file: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickles of other versions: what it cannot read it refuses
        return torch.load(file, map_location="cpu", weights_only=True)


def _invalid(file: Path, problem: str) -> CheckpointInvalid:
    return CheckpointInvalid(
        problem, where=str(file), remedy="Give a state dict of this network, as safetensors or written by torch.save."
    )
