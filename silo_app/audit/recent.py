"""The newest records of an audit log, also of files that it was rotated to meanwhile."""

import datetime as dt
import os
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from silo_app.audit.chain import record_of
from silo_app.audit.kept import PACKED, UNPACKING_FAILED, kept_files, opened

__all__ = ["newest_records"]

_BLOCK = 1 << 18
_COARSE_S = 2.0
"""How far the time of a file may lie before that of its newest record: of some file systems it is so coarse."""


def newest_records(path: Path, since: float = 0.0) -> Iterator[dict[str, Any]]:
    """Yield the records of the log at `path` that were written at `since` or later, seconds since 1970.

    Of each file the newest comes first, and the file that is written now before the others. What cannot be read is left
    out: nothing is verified here. A file that changes its name meanwhile may be read twice, and is not left out.
    """
    oldest = dt.datetime.fromtimestamp(since, dt.UTC).isoformat(timespec="milliseconds")
    read: set[int] = set()
    while new := {file: status for file, status in kept_files(path).items() if status.st_ino not in read}:
        for file, listed in sorted(new.items(), key=lambda one: (one[0] != path, -one[1].st_mtime)):
            try:
                with opened(file) as content:
                    status = os.fstat(content.fileno())
                    read.add(status.st_ino)
                    if status.st_mtime >= since - _COARSE_S:
                        yield from _newest(content, file, oldest)
            except FileNotFoundError:
                continue  # it has another name by now, and comes in the next turn
            except OSError:
                read.add(listed.st_ino)


def _newest(content: BufferedIOBase, file: Path, oldest: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a file that are not older, newest first."""
    if file.suffix in PACKED:  # it can only be read from its start
        yield from reversed([record for record in _records(_unpacked(content)) if str(record.get("at")) >= oldest])
        return
    for record in _records(_backwards(content)):
        if str(record.get("at")) < oldest:
            return
        yield record


def _records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    return (record for line in lines if (record := record_of(line)) is not None)


def _unpacked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a packed file, as far as it can be unpacked: it may be being packed now."""
    try:
        yield from lines
    except UNPACKING_FAILED:
        return


def _backwards(file: BufferedIOBase) -> Iterator[bytes]:
    """Yield a file's lines, the last one first, and read no more of it than is asked for."""
    place, rest = file.seek(0, os.SEEK_END), b""
    while place:
        length = min(_BLOCK, place)
        place -= length
        file.seek(place)
        rest, *lines = (file.read(length) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest
