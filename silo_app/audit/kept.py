"""The files of an audit log that are kept: the one that is written, and those that it was rotated to in the same folder.

Whoever rotates it (logrotate, a script) names them with a number or a date, as `audit.jsonl.1`, `audit.jsonl-20261130.gz` or
`audit-20261130.jsonl`; a copy under another name is not read.
"""

import gzip
import lzma
import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from silo_app.audit.chain import Chain, record_of, verify_lines
from silo_app.errors import AuditDamaged, NotReady

__all__ = [
    "LONGEST_LINE",
    "PACKED",
    "UNPACKING_FAILED",
    "kept_files",
    "last_digest",
    "opened",
    "verified",
    "verified_records",
]

LONGEST_LINE = 1 << 20
"""Bytes: no line of a log is longer."""
PACKED = (".gz", ".xz")
UNPACKING_FAILED = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
_MORE = r"[.-]\d[\d.:T_-]*"
_NEWEST = 3
"""So many of the files are looked at for the newest line: one may be a copy of an older one."""


def verified_records(path: Path, event: str) -> list[dict[str, Any]]:
    """Return the records of one event from all files of the log at `path`, newest last; what was copied comes once.

    Only these are held in memory: a log of years is larger. Raises as `verified` does.
    """
    found: dict[str, dict[str, Any]] = {}

    def see(_file: Path, record: dict[str, Any]) -> None:
        if record.get("event") == event:
            found[record["digest"]] = record

    verified(path, see)
    return sorted(found.values(), key=lambda record: str(record.get("at")))


def verified(path: Path, see: Callable[[Path, dict[str, Any]], None]) -> dict[Path, Chain]:
    """Verify all files of the log at `path`, line by line, and give each record to `see`; return the files' chains.

    Raises `AuditDamaged` naming the file and its line, `NotReady` if the files change their names meanwhile.
    """
    kept, chains = kept_files(path), dict[Path, Chain]()
    try:
        for file in kept:
            with opened(file) as lines:
                chains[file] = _verify(lines, file, partial(see, file))
    except FileNotFoundError:
        kept = {}
    if _inodes(kept) != _inodes(kept_files(path)):
        raise NotReady("the audit log is being rotated", where=str(path), remedy="Ask again in a moment.")
    return chains


def kept_files(path: Path) -> dict[Path, os.stat_result]:
    """Return the files of the log, by name, each with its status; none if nothing was written yet."""
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    name = re.compile(rf"{stem}({ending}({_MORE})?|{_MORE}({ending})?)(\.gz|\.xz)?")
    files = sorted(file for file in path.parent.glob("*") if name.fullmatch(file.name))
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # it was given another name since
            if stat.S_ISREG((status := file.stat()).st_mode):
                found[file] = status
    return found


def _inodes(files: Mapping[Path, os.stat_result]) -> dict[Path, int]:
    return {file: status.st_ino for file, status in files.items()}


def last_digest(path: Path, *, packed: bool = True) -> str:
    """Return the digest of the newest line of the files that the log at `path` was rotated to; empty if none can be read.

    Of packed files only if they are asked for: they are read from their start.
    """
    kept = kept_files(path)
    rotated = [file for file in kept if file != path and (packed or file.suffix not in PACKED)]
    newest = sorted(rotated, key=lambda file: kept[file].st_mtime, reverse=True)[:_NEWEST]
    records = [record for file in newest if (record := _last_record(file))]
    return str(max(records, key=lambda record: str(record.get("at"))).get("digest", "")) if records else ""


def _last_record(file: Path) -> dict[str, Any]:
    """Return the record of a file's last whole line; empty if it cannot be read."""
    try:
        with opened(file) as lines:
            if file.suffix not in PACKED:
                lines.seek(max(0, file.stat().st_size - 2 * LONGEST_LINE))
            (line,) = deque((line for line in lines if line.endswith(b"\n")), maxlen=1) or (b"",)
    except (OSError, *UNPACKING_FAILED):
        return {}
    return record_of(line) or {}


def opened(file: Path) -> AbstractContextManager[BufferedIOBase]:
    """Open a file of a log, unpacked if it is packed. Raises `OSError`; reading one of those `UNPACKING_FAILED` too."""
    match file.suffix:
        case ".gz":
            return gzip.open(file)
        case ".xz":
            return lzma.open(file)
        case _:
            return file.open("rb")


def _verify(lines: Iterable[bytes], file: Path, see: Callable[[dict[str, Any]], None]) -> Chain:
    try:
        return verify_lines(lines, where=file.name, see=see)
    except UNPACKING_FAILED as error:
        remedy = "If it is being packed just now, ask again; else compare it with a backup."
        raise AuditDamaged(f"it cannot be unpacked ({error})", where=file.name, remedy=remedy) from None
