"""What a generation says of itself, and how it is checked before anybody searches it."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from silo_app.errors import IndexDamaged
from silo_app.policy.likeness import Likeness

__all__ = [
    "CASES_FILE",
    "DIGESTS_FILE",
    "INDEX_FILE",
    "LOOK_FILE",
    "MANIFEST_FILE",
    "VECTORS_FILE",
    "GenerationInfo",
    "IndexKind",
    "damaged",
    "digest_of",
    "read_manifest",
    "read_rows",
    "require_sound",
    "write_rows",
]

INDEX_FILE = "gallery.faiss"
"""The vectors, or lists of them; row i is the embedding of view i."""
VECTORS_FILE = "vectors.npy"
"""float16 (n, D): the vectors themselves, where `INDEX_FILE` holds them too coarsely to rank by."""
CASES_FILE = "cases.npy"
"""uint8 (n, 16): the case of each row."""
DIGESTS_FILE = "digests.npy"
"""uint8 (n, 32): the keyed digest of each row's file; stays in the silo, and lets the next build skip what is unchanged."""
LOOK_FILE = "look.safetensors"
"""The silo's look (`encoder.looks`), which the vectors lack; only where the manifest counts its views."""
MANIFEST_FILE = "manifest.json"
_BLOCK = 1 << 20

IndexKind = Literal["exact", "ivf", "milvus"]
_FILES: dict[str, set[str]] = {
    "exact": {INDEX_FILE, CASES_FILE, DIGESTS_FILE},
    "ivf": {INDEX_FILE, VECTORS_FILE, CASES_FILE, DIGESTS_FILE},
    "milvus": {CASES_FILE, DIGESTS_FILE},
}


class GenerationInfo(BaseModel):
    """The manifest: `manifest.json`, written last."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    generation: str = Field(pattern=r"^\d{6,}$")
    encoder_version: str
    dimension: int = Field(ge=1)
    views: int = Field(ge=0)
    cases: int = Field(ge=0)
    created: str
    """UTC, ISO 8601."""
    kind: IndexKind = "exact"
    collection: str = Field(default="", pattern=r"^[a-z0-9_]*$")
    """In Milvus, where `kind` says so."""
    likeness: Likeness | None = None
    """How alike its views are; None in a generation of an older version."""
    look_views: int | None = Field(default=None, ge=0)
    """The training views from which the silo's look was estimated; None where the vectors have it."""
    files: dict[str, str]
    """SHA-256 of every other file of the generation."""


def read_manifest(folder: Path) -> GenerationInfo:
    """Read a generation's manifest. Raises `IndexDamaged`."""
    try:
        info = GenerationInfo.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        raise damaged(folder, "it has no manifest") from None
    except (OSError, ValidationError):
        raise damaged(folder, "its manifest cannot be read") from None
    expected = _FILES[info.kind] | ({LOOK_FILE} if info.look_views is not None else set())
    if info.generation != folder.name or info.files.keys() != expected:
        raise damaged(folder, "its manifest is of another generation")
    return info


def require_sound(folder: Path, info: GenerationInfo) -> None:
    """Compare every file with its digest. Raises `IndexDamaged` naming the first that differs."""
    for name, digest in info.files.items():
        try:
            found = digest_of(folder / name)
        except OSError:
            raise damaged(folder, f"{name} is missing or cannot be read") from None
        if found != digest:
            raise damaged(folder, f"{name} is not as it was written")


def read_rows(file: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Read what `write_rows` wrote. Raises `IndexDamaged`."""
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise damaged(file.parent, f"{file.name} cannot be read") from None
    if array.shape != shape or array.dtype != np.uint8:
        raise damaged(file.parent, f"{file.name} has another shape than the manifest says")
    return np.ascontiguousarray(array)


def write_rows(file: Path, array: NDArray[np.uint8]) -> None:
    """Write cases or digests, uint8 (n, bytes of one)."""
    with file.open("wb") as opened:
        np.save(opened, array, allow_pickle=False)


def digest_of(file: Path) -> str:
    """Return a file's SHA-256, hex."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def damaged(folder: Path, problem: str) -> IndexDamaged:
    """Return the error for one generation."""
    return IndexDamaged(problem, where=str(folder), remedy="Run `silo index build` to make a new generation.")
