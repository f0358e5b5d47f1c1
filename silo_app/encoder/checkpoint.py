"""An encoder on disk: safetensors, and a model card that says where it comes from and what it is for.

`models/<encoder version>/encoder.safetensors` and `card.json`; `models/current` names the version in use. What the silo has
for itself lies beside it in `personal.safetensors`: it is not part of the version, and of no export.
"""

import datetime as dt
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from silo_app import durable
from silo_app.cases import EncoderVersion, is_encoder_version
from silo_app.encoder.current import current_version, set_current
from silo_app.encoder.looks import METHOD
from silo_app.encoder.preprocessing import CONTRASTS, PREPROCESSING
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import CheckpointInvalid, EncoderUnknown

__all__ = ["Checkpoint", "current_version", "load", "named", "save", "set_current", "versions"]

_WEIGHTS = "encoder.safetensors"
_CARD = "card.json"
_PERSONAL = "personal.safetensors"
_BEGINNING = re.compile(r"[0-9a-f]{8,32}")
_INTENDED = (
    "Research and quality improvement: finding similar chest radiographs. Not a medical device; not for diagnosis. "
    "Weights can tell something about the images they were trained on: release them only as the silos' policies allow."
)


@dataclass(frozen=True)
class Checkpoint:
    """A verified encoder: its spec, weights float32 (P,), version and card."""

    spec: EncoderSpec
    vector: NDArray[np.float32]
    version: EncoderVersion
    card: Mapping[str, Any]
    personal: NDArray[np.float32] | None = None
    """This silo's own weights, float32 (H,): its findings head, or a whole network; None if it has none."""

    @property
    def has_own_network(self) -> bool:
        """Whether the silo has a whole network of its own beside the shared one."""
        return self.personal is not None and len(self.personal) == len(self.vector)

    @property
    def has_own_head(self) -> bool:
        """Whether the silo tells findings by a head of its own on the shared network."""
        return self.personal is not None and not self.has_own_network

    @property
    def own_vector(self) -> NDArray[np.float32]:
        """The weights that tell findings in this silo, float32 (P,): personal ones stand for the last of the shared."""
        if self.personal is None:
            return self.vector
        return np.concatenate([self.vector[: len(self.vector) - len(self.personal)], self.personal])


def version_of(spec: EncoderSpec, vector: NDArray[np.float32]) -> EncoderVersion:
    """Return the digest over spec, what is between file and network, how looks are removed, and weights: 32 hex digits."""
    digest = hashlib.sha256()
    methods = [PREPROCESSING]
    methods += [CONTRASTS] if spec.channels == "contrasts" else []
    methods += [METHOD] if spec.looks == "removed" else []
    digest.update(json.dumps([spec.model_dump(mode="json"), *methods], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(vector, "<f4").tobytes())
    return EncoderVersion(digest.hexdigest()[:32])


def save(
    models: Path,
    spec: EncoderSpec,
    vector: NDArray[np.float32],
    card: Mapping[str, Any],
    personal: NDArray[np.float32] | None = None,
) -> EncoderVersion:
    """Write an encoder and its card so that it is there whole or not at all, and return its version.

    Jobs that differ in what silos have for themselves can end with the same version. Its silo then has what the last of
    them left that left something, with that job's card.
    """
    version = version_of(spec, vector)
    folder = durable.private_folder(models) / version
    there = folder.exists()
    if there and personal is None:
        return version
    content = {
        **card,
        "encoder_version": version,
        "spec": spec.model_dump(mode="json"),
        "preprocessing": PREPROCESSING,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "intended_use": _INTENDED,
    }
    if there and personal is not None:
        write_vector(folder / _PERSONAL, personal)
        durable.write_text(folder / _CARD, json.dumps(content, indent=2))
        return version
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=models))
    try:
        write_vector(temporary / _WEIGHTS, vector)
        if personal is not None:
            write_vector(temporary / _PERSONAL, personal)
        durable.write_text(temporary / _CARD, json.dumps(content, indent=2))
        temporary.replace(folder)
    except OSError:
        if not folder.exists():  # else another process was faster with the same weights
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    durable.sync_folder(models)
    return version


def versions(models: Path) -> list[EncoderVersion]:
    """Return the versions that the silo holds, oldest first."""
    if not models.is_dir():
        return []
    folders = [folder for folder in models.iterdir() if is_encoder_version(folder.name) and (folder / _CARD).is_file()]
    return [EncoderVersion(folder.name) for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime)]


def named(text: str, *places: Path) -> EncoderVersion:
    """Return the version held in one of the `places` (`models/`) whose digits begin so, 8 at least.

    Raises `EncoderUnknown` if none does, or more than one.
    """
    digits = text.strip().lower()
    held = {version for models in places for version in versions(models)} if _BEGINNING.fullmatch(digits) else set()
    found = [version for version in held if version.startswith(digits)]
    if len(found) != 1:
        raise EncoderUnknown(
            f"{'more than one encoder' if found else 'no encoder'} here begins with {text[:64]!r}",
            where=", ".join(map(str, places)),
            remedy="`silo model list` has the versions; the first 8 of their 32 digits do where only one begins so.",
        )
    return found[0]


def read_card(models: Path, version: EncoderVersion) -> dict[str, Any]:
    """Return a version's model card. Raises `CheckpointInvalid`."""
    if not is_encoder_version(version):
        raise CheckpointInvalid(
            f"{version[:64]!r} is not an encoder version (32 hexadecimal digits)",
            where=str(models),
            remedy="Choose one that the silo holds: `silo model list`, `silo model use`.",
        )
    file = models / version / _CARD
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise _invalid(file, "the model card is missing or cannot be read") from None
    if not isinstance(content, dict):
        raise _invalid(file, "the model card is not an object")
    return content


def load(models: Path, version: EncoderVersion) -> Checkpoint:
    """Read and verify an encoder. Raises `CheckpointInvalid` if anything of it is not what its version says."""
    card = read_card(models, version)
    try:
        spec = EncoderSpec.model_validate(card.get("spec"))
    except ValidationError:
        raise _invalid(models / version / _CARD, "the model card has no valid spec") from None
    if card.get("preprocessing") != PREPROCESSING:
        raise _invalid(models / version / _CARD, f"it was made for preprocessing {card.get('preprocessing')}")
    vector = read_vector(models / version / _WEIGHTS)
    if version_of(spec, vector) != version:
        raise _invalid(models / version / _WEIGHTS, "the weights are not those of this version")
    file = models / version / _PERSONAL
    personal = read_vector(file) if file.exists() else None
    if personal is not None and not 0 < len(personal) <= len(vector):
        raise _invalid(file, f"{len(personal)} personal weights of {len(vector)}")
    return Checkpoint(spec, vector, version, card, personal)


def _invalid(place: Path, problem: str) -> CheckpointInvalid:
    return CheckpointInvalid(
        problem, where=str(place), remedy="Remove this version's folder and take part in a training job again."
    )
