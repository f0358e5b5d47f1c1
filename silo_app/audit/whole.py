"""Is an audit log whole? Its files, verified line by line, and whether each continues another.

A line that was changed, put in or taken out shows in its own file; a file that is missing, in what the next one continues.
What cannot show is a missing end: note the last digest elsewhere, and look whether it is still there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from silo_app.audit.chain import REMEDY, START, Chain
from silo_app.audit.kept import verified
from silo_app.errors import AuditDamaged

__all__ = ["LogFile", "WholeLog", "whole_log"]


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log, verified."""

    names: tuple[str, ...]
    """Several if it was copied, or packed and kept."""
    lines: int
    first_at: str
    last_at: str
    previous: str
    """The digest that its first line continues."""
    digest: str
    """Of its last line."""
    events: dict[str, int]
    """How many lines of each event."""

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class WholeLog:
    """All files of a log, oldest first, and what is not right with them as a whole."""

    files: tuple[LogFile, ...]
    problems: tuple[str, ...]
    """Sentences: which file continues what is not here, or what another one continues already."""
    anew: tuple[str, ...]
    """Files, not the oldest, that begin anew: what was there before them is not said."""

    @property
    def digest(self) -> str:
        """The last digest: to be noted elsewhere."""
        return self.files[-1].digest if self.files else START

    @property
    def has_older(self) -> bool:
        """Whether there were older files once, which are not here."""
        return bool(self.files) and self.files[0].previous != START


def whole_log(path: Path, noted: str | None = None) -> WholeLog:
    """Verify all files of the log at `path`; `noted` is a digest that was noted once, and must be among the lines.

    Holds nothing of a file but counts. Raises as `audit.kept.verified` does, and `AuditDamaged` if the noted digest is gone.
    """
    seen: defaultdict[Path, _Seen] = defaultdict(_Seen)
    is_noted = noted is None

    def see(file: Path, record: dict[str, Any]) -> None:
        nonlocal is_noted
        seen[file].count(str(record.get("event")), str(record.get("at")))
        is_noted = is_noted or record["digest"] == noted

    chains = verified(path, see)
    if not is_noted:
        problem = "no line has the digest that was noted: lines at its end were removed, or whole files"
        raise AuditDamaged(problem, where=str(path), remedy=REMEDY)
    return _joined([seen[file].of(file.name, chain) for file, chain in chains.items() if chain.lines])


class _Seen:
    """What is counted of one file."""

    def __init__(self) -> None:
        self._events: Counter[str] = Counter()
        self._first_at = self._last_at = ""

    def count(self, event: str, at: str) -> None:
        self._events[event] += 1
        self._first_at, self._last_at = self._first_at or at, at

    def of(self, name: str, chain: Chain) -> LogFile:
        events = dict(sorted(self._events.items()))
        return LogFile((name,), chain.lines, self._first_at, self._last_at, chain.previous, chain.digest, events)


def _joined(files: Iterable[LogFile]) -> WholeLog:
    once: dict[tuple[str, str], LogFile] = {}
    for file in files:
        same = once.get(key := (file.previous, file.digest))
        once[key] = replace(same, names=(*same.names, *file.names)) if same else file
    ordered, first = _ordered(list(once.values()))
    continued = Counter(file.previous for file in ordered)
    problems = [
        f"{file.name} continues a line that is in no file: one that came before it is missing, or the end of one"
        for file in first[1:]
        if file.previous != START
    ]
    problems += [
        f"{' and '.join(file.name for file in ordered if file.previous == digest)} continue the same line: one is a copy of "
        "before, or was put in"
        for digest, count in continued.items()
        if count > 1 and digest != START
    ]
    anew = [file.name for file in first[1:] if file.previous == START]
    return WholeLog(tuple(ordered), tuple(problems), tuple(anew))


def _ordered(files: list[LogFile]) -> tuple[list[LogFile], list[LogFile]]:
    """Return files each behind the one that it continues, and those that continue none; oldest first."""
    ends = {file.digest for file in files}
    after: defaultdict[str, list[LogFile]] = defaultdict(list)
    for file in sorted(files, key=lambda file: (file.first_at, file.previous != START)):
        after[file.previous if file.previous in ends else START].append(file)
    ordered, waiting = list[LogFile](), after[START][::-1]
    while waiting:
        ordered.append(file := waiting.pop())
        waiting += after[file.digest][::-1]
    return ordered, after[START]
