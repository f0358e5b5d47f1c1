"""The silo's audit log: who asked what, and what was released; JSON lines, appended before an answer leaves.

Several processes append to one file (the index process, people's commands): a lock on the file orders them, and whoever
appends reads the last digest again if somebody else has written, or if the file was rotated away. Many threads share one
fsync. A line holds codes, counts, names of silos and users, and random case ids; no identifier, no embedding, no pixel.

A record outlives the process from the moment it is written, and a power cut from the next fsync on: at once, or within the
time that an `AuditLog` is given (docs/decisions/audit-before-answer.md).
"""

import datetime as dt
import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from silo_app.audit.chain import START, Chain, line_of, record_of, verify_lines
from silo_app.audit.kept import LONGEST_LINE, last_digest
from silo_app.durable import PRIVATE, private_folder, sync_folder

__all__ = ["AuditLog", "verify"]

Value = str | int | float | bool | list[str] | None
_USUAL_LINE = 4096


class AuditLog:
    """Appends to one file; safe from many threads and processes.

    With `sync_within_s`, an append does not wait for the disk: a thread sees to it that the record is there within so many
    seconds, and an append after a disk that failed raises.
    """

    def __init__(self, path: Path, *, sync_within_s: float = 0.0) -> None:
        self._path = path
        self._within_s = sync_within_s
        self._later = _Later(self) if sync_within_s else None
        self._writing = threading.Lock()
        self._syncing = threading.Lock()
        self._descriptor = -1
        self._place = (0, 0, 0)  # device, inode and size after our last line
        self._digest = START
        self._written = self._synced = 0

    def append(self, event: str, fields: Mapping[str, Value]) -> None:
        """Write one record; it is on disk when this returns, or soon. Raises `OSError`."""
        self.append_all([(event, fields)])

    def append_all(self, records: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
        """Write records, events with their fields; all are on disk when this returns, or soon. Raises `OSError`."""
        if self._later is not None:
            self._later.require_sound()
        with self._writing:
            self._append(records)
            self._written += len(records)
            mine = self._written
        if self._later is None:
            self._sync(mine)
        else:
            self._later.wake(self._within_s)

    def sync(self) -> None:
        """Return when everything that was appended here is on disk. Raises `OSError`."""
        with self._writing:
            mine = self._written
        self._sync(mine)

    def close(self) -> None:
        """Close the file, synced; a later `append` opens it again."""
        self.sync()
        with self._writing, self._syncing:
            self._close()

    def _sync(self, mine: int) -> None:
        with self._syncing:
            if self._synced >= mine:
                return  # another thread's fsync came after our write
            upto = self._written
            os.fsync(self._descriptor)
            self._synced = upto

    def _append(self, records: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
        """Write all records at once, or none."""
        self._open_current()
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            if _place(self._descriptor) != self._place:
                self._catch_up()
            at, digest, lines = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), self._digest, []
            for event, fields in records:
                line, digest = line_of({"at": at, "event": event, **fields}, digest)
                lines.append(line)
            self._write("".join(lines).encode())
            self._digest, self._place = digest, _place(self._descriptor)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _write(self, content: bytes) -> None:
        size = os.fstat(self._descriptor).st_size
        if (written := os.write(self._descriptor, content)) < len(content):
            os.ftruncate(self._descriptor, size)
            raise OSError(errno.ENOSPC, f"{written} of {len(content)} bytes were written", str(self._path))

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
        tail = self._tail(size)
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(self._descriptor, size - len(tail) + whole)
        if whole:
            self._digest = _digest_of(tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole])
        else:  # a new file continues the one before it, to which somebody else may have written last
            self._digest = last_digest(self._path, packed=self._digest == START) or self._digest

    def _tail(self, size: int) -> bytes:
        """Return the end of the file, with its last whole line: mostly that is short."""
        length = _USUAL_LINE
        while True:
            tail = os.pread(self._descriptor, length, max(0, size - length))
            if tail.count(b"\n") > 1 or length >= min(size, LONGEST_LINE):
                return tail
            length *= 8

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._place = -1, (0, 0, 0)


class _Later:
    """The thread that syncs a log a moment after it was written to; it ends when there is nothing more to sync."""

    def __init__(self, log: AuditLog) -> None:
        self._log = weakref.ref(log)
        self._lock = threading.Lock()
        self._pending = self._running = False
        self._failure: OSError | None = None

    def require_sound(self) -> None:
        """Raise the `OSError` of a sync that failed, once: the next append tries again."""
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def wake(self, within_s: float) -> None:
        """Have the log synced in time."""
        with self._lock:
            self._pending = True
            if self._running:
                return
            self._running = True
        # no daemon: the process does not end before what it wrote is on disk
        threading.Thread(target=self._run, args=(within_s,), name="audit-sync").start()

    def _run(self, within_s: float) -> None:
        while True:
            time.sleep(within_s)
            with self._lock:
                if not self._pending:
                    self._running = False
                    return
                self._pending = False
            if (log := self._log()) is not None:
                self._synced(log)

    def _synced(self, log: AuditLog) -> None:
        try:
            log.sync()
        except OSError as error:
            with self._lock:
                self._failure = error


def verify(path: Path, *, previous: str | None = None) -> Chain:
    """Check a log from its first line to its last.

    Raises `AuditDamaged` naming the first line that is not as it was written.
    """
    with path.open("rb") as file:
        return verify_lines(file, previous=previous, where=path.name)


def _place(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size


def _digest_of(line: bytes) -> str:
    """Return a line's digest; for one that is damaged, START: verification will name it."""
    return str((record_of(line) or {}).get("digest", START))
