"""What older generations hold, and nobody may or need keep: cases that were taken out, and all that is left in Milvus.

The generation before the one in use is kept to fall back on. It would have the vectors of cases that were taken out of the
silo until the build after the next, although `silo index build` is said to remove them.
"""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from silo_app.cases import CaseId
from silo_app.errors import IndexDamaged, SiloscopeError
from silo_app.hex_rows import hex_rows, row_values
from silo_app.index.generations import collections_named, generation_names, in_use, remove
from silo_app.index.manifest import CASES_FILE, read_manifest, read_rows
from silo_app.index.storage import Storage

__all__ = ["forget_cases", "forget_in_milvus"]

_log = logging.getLogger(__name__)


def forget_cases(root: Path, storage: Storage, cases: Sequence[CaseId], *, kept: str = "") -> None:
    """Remove the generations that hold any of the cases, with what Milvus has of them; all but the one named `kept`.

    Call it within `building`. What a server that is away still holds, the next build drops.
    """
    if not cases:
        return
    held = [name for name in generation_names(root) if name != kept and _holds(root / name, cases)]
    for name in held:
        remove(root / name)
    if held:
        try:
            storage.tidy(collections_named(root))
        except SiloscopeError as error:
            _log.warning("what Milvus holds of cases that were taken out stays there for now: %s", error)


def forget_in_milvus(root: Path, storage: Storage) -> None:
    """Remove the older generations that are in Milvus with all that it holds of them, if the one in use is in files.

    Call it within `building`. Raises `NotReady` if Milvus does not answer: what it still holds, the next build drops.
    """
    used = in_use(root)
    if used is None or storage.settings.milvus is None or read_manifest(root / used).kind == "milvus":
        return
    for name in generation_names(root):
        with contextlib.suppress(IndexDamaged):
            if read_manifest(root / name).kind == "milvus":
                remove(root / name)
    storage.tidy(collections_named(root))


def _holds(folder: Path, cases: Sequence[CaseId]) -> bool:
    """Return whether a generation holds one of the cases; what cannot be read may."""
    try:
        rows = read_rows(folder / CASES_FILE, (read_manifest(folder).views, 16))
    except IndexDamaged:
        return True
    return bool(np.isin(row_values(rows), row_values(hex_rows(cases, 16))).any())
