"""The files of an audit log that are kept: the one that is written, and those that it was rotated to in the same folder.

Whoever rotates it (logrotate, a script) names them with a number or a date, as `audit.jsonl.1`, `audit.jsonl-20261130.gz` or
`audit-20261130.jsonl`; a copy under another name is not read.
"""

import gzip
import json
import lzma
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from silo_app.audit.chain import verify_lines
from silo_app.errors import AuditDamaged, NotReady

__all__ = ["PACKED", "UNPACKING_FAILED", "kept_files", "opened", "verified_records"]

_MORE = r"[.-]\d[\d.:T_-]*"
PACKED = (".gz", ".xz")
UNPACKING_FAILED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


def verified_records(path: Path, event: str) -> list[dict[str, Any]]:
    """Return the records of one event from all files of the log at `path`, newest last; what was copied comes once.

    Only these are held in memory: a log of years is larger. Raises `AuditDamaged` naming the file and its line, `NotReady`
    if the files change their names meanwhile.
    """
    found: dict[str, dict[str, Any]] = {}

    def noting(lines: Iterable[bytes]) -> Iterator[bytes]:
        for line in lines:
            yield line
            record = json.loads(line)  # a sound one: whoever took it verifies a line before it takes the next
            if record.get("event") == event:
                found[record["digest"]] = record

    kept = kept_files(path)
    try:
        for file in kept:
            with opened(file) as lines:
                _verify(noting(lines), file)
    except FileNotFoundError:
        kept = {}
    if kept != kept_files(path):
        raise NotReady("the audit log is being rotated", where=str(path), remedy="Ask again in a moment.")
    return sorted(found.values(), key=lambda record: str(record.get("at")))


def kept_files(path: Path) -> dict[Path, int]:
    """Return the files of the log, by name, each with its inode; none if nothing was written yet."""
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    name = re.compile(rf"{stem}({ending}({_MORE})?|{_MORE}({ending})?)(\.gz|\.xz)?")
    files = sorted(file for file in path.parent.glob("*") if name.fullmatch(file.name))
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # it was given another name since
            if stat.S_ISREG((status := file.stat()).st_mode):
                found[file] = status.st_ino
    return found


def opened(file: Path) -> AbstractContextManager[BufferedIOBase]:
    """Open a file of a log, unpacked if it is packed. Raises `OSError`; reading one of those `UNPACKING_FAILED` too."""
    match file.suffix:
        case ".gz":
            return gzip.open(file)
        case ".xz":
            return lzma.open(file)
        case _:
            return file.open("rb")


def _verify(lines: Iterable[bytes], file: Path) -> None:
    try:
        verify_lines(lines, where=file.name)
    except UNPACKING_FAILED as error:
        remedy = "If it is being packed just now, ask again; else compare it with a backup."
        raise AuditDamaged(f"it cannot be unpacked ({error})", where=file.name, remedy=remedy) from None
