"""The silo's audit log: who asked what, and what was released; JSON lines, appended, on disk before an answer leaves.

Several processes append to one file (the index process, people's commands): a lock on the file orders them, and whoever
appends reads the last digest again if somebody else has written, or if the file was rotated away. Many threads share one
fsync. A line holds codes, counts, names of silos and users, and random case ids; no identifier, no embedding, no pixel.
"""

import datetime as dt
import fcntl
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silo_app.audit.chain import START, Chain, line_of, verify_lines
from silo_app.durable import PRIVATE, private_folder, sync_folder

__all__ = ["AuditLog", "verify"]

Value = str | int | float | bool | list[str] | None
_TAIL = 1 << 20
"""Bytes at the end of a log in which its last line is looked for; no line is longer."""


class AuditLog:
    """Appends to one file; safe from many threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._descriptor = -1
        self._place = (0, 0, 0)  # device, inode and size after our last line
        self._digest = START
        self._written = self._synced = 0

    def append(self, event: str, fields: Mapping[str, Value]) -> None:
        """Write one record and return when it is on disk."""
        self.append_all([(event, fields)])

    def append_all(self, records: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
        """Write records, events with their fields, and return when all of them are on disk."""
        with self._writing:
            for event, fields in records:
                self._append(event, fields)
                self._written += 1
            mine, descriptor = self._written, self._descriptor
        with self._syncing:
            if self._synced >= mine:
                return  # another thread's fsync came after our write
            upto = self._written
            os.fsync(descriptor)
            self._synced = upto

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        with self._writing, self._syncing:
            self._close()

    def _append(self, event: str, fields: Mapping[str, Value]) -> None:
        self._open_current()
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            if _place(self._descriptor) != self._place:
                self._catch_up()
            at = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
            line, digest = line_of({"at": at, "event": event, **fields}, self._digest)
            os.write(self._descriptor, line.encode())
            self._digest, self._place = digest, _place(self._descriptor)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _open_current(self) -> None:
        """Open the file that has the name now: the old one may have been rotated away."""
        try:
            status = self._path.stat()
            if self._descriptor >= 0 and (status.st_dev, status.st_ino) == self._place[:2]:
                return
        except FileNotFoundError:
            private_folder(self._path.parent)
        if self._descriptor >= 0:
            with self._syncing:
                os.fsync(self._descriptor)
                self._synced = self._written
                self._close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, PRIVATE)
        sync_folder(self._path.parent)

    def _catch_up(self) -> None:
        """Read the last digest; cut off half a line, which a process that was killed had not yet been answered for."""
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, _TAIL, max(0, size - _TAIL))
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(self._descriptor, size - len(tail) + whole)
        lines = tail[:whole].splitlines()
        if lines:  # an empty file continues the one before it, if this process wrote that
            self._digest = _digest_of(lines[-1])

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._place = -1, (0, 0, 0)


def verify(path: Path, *, previous: str | None = None) -> Chain:
    """Check a log from its first line to its last.

    Raises `AuditDamaged` naming the first line that is not as it was written.
    """
    with path.open("rb") as file:
        return verify_lines(file, previous=previous, where=path.name)


def last_records(path: Path, count: int = 10_000) -> list[dict[str, Any]]:
    """Return up to `count` of the newest records that lie in the log's last bytes, oldest first; none if unreadable."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL * 8))
            lines = file.read().splitlines()[-count:]
    except OSError:
        return []
    return [record for line in lines if isinstance(record := _loaded(line), dict)]


def _place(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size


def _loaded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _digest_of(line: bytes) -> str:
    """Return a line's digest; for one that is damaged, START: verification will name it."""
    record = _loaded(line)
    return str(record.get("digest", START)) if isinstance(record, dict) else START
