"""The lines of an audit log: each carries the digest of the one before, so that no line can be changed or taken out.

What a chain cannot show is a missing end: keep a copy of the last digest elsewhere (`Chain.digest`) where that matters.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from silo_app.errors import AuditDamaged

__all__ = ["REMEDY", "START", "Chain", "line_of", "record_of", "verify_lines"]

START = "0" * 64
"""What the first line of a log has as the digest before it."""

_AS_IS = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
REMEDY = "Keep the file as it is, compare it with a backup, and tell whoever is responsible for data protection."
"""Where a log is not as it was written."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified stretch of a log: how many lines, the digest it continues from, and its last digest."""

    lines: int
    previous: str
    digest: str


def line_of(record: Mapping[str, Any], previous: str) -> tuple[str, str]:
    """Return the line of a record after the line with digest `previous`, and its own digest."""
    content = {**record, "previous": previous}
    digest = hashlib.sha256(_canonical(content)).hexdigest()
    return _AS_IS.encode({**content, "digest": digest}) + "\n", digest


def verify_lines(
    lines: Iterable[bytes],
    *,
    previous: str | None = None,
    where: str = "",
    see: Callable[[dict[str, Any]], None] = lambda _record: None,
) -> Chain:
    """Check a log, line by line; `previous` is the last digest of the log that it continues, if that is known.

    Each record is given to `see` once it is known to be sound.

    Raises `AuditDamaged` naming the first line that is not as it was written.
    """
    first, last, count = previous, previous, 0
    for number, line in enumerate(lines, start=1):
        content = _parsed(line, where, number)
        digest = content.pop("digest", None)
        last = content.get("previous") if last is None else last
        first = last if first is None else first
        if content.get("previous") != last:
            raise _damaged(where, number, "it does not follow the line before: a line was taken out or put in")
        if hashlib.sha256(_canonical(content)).hexdigest() != digest:
            raise _damaged(where, number, "it was changed")
        see({**content, "digest": digest})
        last, count = str(digest), number
    return Chain(lines=count, previous=first or START, digest=last or START)


def _canonical(content: Mapping[str, Any]) -> bytes:
    return _SORTED.encode(content).encode()


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record that a line says, unverified; None if it says none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _parsed(line: bytes, where: str, number: int) -> dict[str, Any]:
    content = record_of(line)
    if not line.endswith(b"\n") or content is None:
        raise _damaged(where, number, "it is not a whole line of an audit log")
    return content


def _damaged(where: str, number: int, problem: str) -> AuditDamaged:
    return AuditDamaged(problem, where=f"{where}:{number}", remedy=REMEDY)
