"""Planted cases: no honest question should find one, and whoever does is not told that it is one."""

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from silo_app import durable
from silo_app.cases import CaseId
from silo_app.errors import ConfigInvalid

__all__ = ["Canaries", "read_canaries", "write_canaries"]

_CASE = re.compile(r"[0-9a-f]{32}")


def read_canaries(path: Path) -> frozenset[CaseId]:
    """Return the planted cases; none without a file. Raises `ConfigInvalid`, so that no slip goes unnoticed."""
    if not path.exists():
        return frozenset()
    lines = durable.read_private_text(path).split()
    if wrong := [number for number, line in enumerate(lines, 1) if not _CASE.fullmatch(line)]:
        raise ConfigInvalid(f"entry {wrong[0]} is no case id", where=str(path), remedy="Use `silo audit plant`.")
    return frozenset(map(CaseId, lines))


def write_canaries(path: Path, cases: Iterable[CaseId]) -> None:
    """Replace the planted cases, durably."""
    durable.private_folder(path.parent)
    durable.write_text(path, "".join(f"{case}\n" for case in sorted(cases)))


class Canaries:
    """The planted cases as they are now; safe from many threads."""

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, str(path)
        self._lock = threading.Lock()
        self._state: tuple[int, int] | None = None
        self._cases: frozenset[CaseId] = frozenset()

    def among(self, cases: Iterable[CaseId]) -> list[CaseId]:
        """Return which of the cases are planted. Raises `ConfigInvalid`."""
        known = self._current()
        return [case for case in cases if case in known] if known else []

    def _current(self) -> frozenset[CaseId]:
        try:
            status = os.stat(self._name)  # noqa: PTH116  (every query asks: a Path takes twice as long)
            state = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            state = (0, 0)
        with self._lock:
            if state != self._state:
                self._cases = read_canaries(self._path)
                self._state = state
            return self._cases
