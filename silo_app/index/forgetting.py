"""What older generations hold, and nobody may or need keep: cases that were taken out, and all that is left in Milvus.

The generation before the one in use is kept to fall back on. It would have the vectors of cases that were taken out of the
silo until the build after the next, although `silo index build` is said to remove them.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from silo_app.cases import CASE_BYTES, CaseId
from silo_app.errors import IndexDamaged
from silo_app.hex_rows import hex_rows, row_values
from silo_app.index.generations import collections_named, generation_names, in_use, remove
from silo_app.index.manifest import CASES_FILE, read_manifest, read_rows
from silo_app.index.storage import Storage

__all__ = ["forget_cases", "forget_in_milvus"]


def forget_cases(root: Path, cases: Sequence[CaseId], *, kept: str = "") -> None:
    """Remove the generations that hold any of the cases, all but the one named `kept`.

    Call it within `building`. What Milvus has of them stays for `forget_in_milvus`: somebody may still search there.
    """
    for name in generation_names(root):
        if cases and name != kept and _holds(root / name, cases):
            remove(root / name)


def forget_in_milvus(root: Path, storage: Storage) -> None:
    """Drop what Milvus holds of no generation; if the one in use is in files, the older ones that are in Milvus too.

    Call it within `building`. Raises `NotReady` if Milvus does not answer: what it still holds, the next build drops.
    """
    used = in_use(root)
    if used is None or storage.settings.milvus is None:
        return
    for name in generation_names(root) if read_manifest(root / used).kind != "milvus" else ():
        with contextlib.suppress(IndexDamaged):
            if read_manifest(root / name).kind == "milvus":
                remove(root / name)
    storage.tidy(collections_named(root))


def _holds(folder: Path, cases: Sequence[CaseId]) -> bool:
    """Return whether a generation holds one of the cases; what cannot be read may."""
    try:
        rows = read_rows(folder / CASES_FILE, (read_manifest(folder).views, CASE_BYTES))
    except IndexDamaged:
        return True
    return bool(np.isin(row_values(rows), row_values(hex_rows(cases, CASE_BYTES))).any())
