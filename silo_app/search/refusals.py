"""Refusals that cost their asker no budget: the first of an hour are recorded whole, of the others how many there were.

Whoever may not ask, or has spent its budget, can go on asking as fast as the silo refuses; the audit log must not grow as
fast. A count is recorded about a minute after it began, with whatever is recorded next, and when the process ends in order.
"""

import datetime as dt
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from silo_app.search.records import Event

__all__ = ["COUNTED", "FreeRefusals"]

COUNTED = "refusals"
"""The audit event of refusals that are counted: of whom, with which code, how many, and since when."""

_HOUR_S = 3600.0


@dataclass(slots=True)
class _Tally:
    """The refusals of one asker with one code, of about an hour."""

    begun: float
    whole: int = 0
    since: float = 0.0
    count: int = 0
    """Those since `since` that no record names yet."""


class FreeRefusals:
    """Counts by asker and code; safe from many threads. Times are in seconds since 1970."""

    def __init__(self, *, whole: int = 10, every_s: float = 60.0) -> None:
        self._whole = whole
        self._every_s = every_s
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def recorded(self, refusal: Event, now: float) -> list[Event]:
        """Count a refusal's record; return it where it is one of the first, and whatever count is to be recorded before."""
        key, due = _key(refusal), list[Event]()
        with self._lock:
            tally = self._tallies.get(key)
            if tally is None or not 0 <= now - tally.begun < _HOUR_S:
                due = _said(key, tally) if tally else []
                tally = self._tallies[key] = _Tally(begun=now)
            if tally.whole < self._whole:
                tally.whole += 1
                return [*due, refusal]
            tally.since = tally.since if tally.count else now
            tally.count += 1
        return due

    def due(self, now: float) -> list[Event]:
        """Return the counts that began a while ago; what was not counted any more for an hour is forgotten."""
        with self._lock:
            due = [
                event
                for key, tally in self._tallies.items()
                if not 0 <= now - tally.since < self._every_s
                for event in _said(key, tally)
            ]
            for key in [key for key, tally in self._tallies.items() if not 0 <= now - tally.begun < _HOUR_S]:
                if not self._tallies[key].count:
                    del self._tallies[key]
        return due

    def rest(self) -> list[Event]:
        """Return all counts that no record names yet."""
        with self._lock:
            return [event for key, tally in self._tallies.items() for event in _said(key, tally)]

    def unrecorded(self, events: Iterable[Event], now: float) -> None:
        """Take counts back that could not be recorded."""
        with self._lock:
            for event in events:
                if event[0] == COUNTED:
                    tally = self._tallies.setdefault(_key(event), _Tally(begun=now, whole=self._whole))
                    tally.since = dt.datetime.fromisoformat(str(event[1]["since"])).timestamp()
                    tally.count += int(str(event[1]["count"]))


def _key(event: Event) -> tuple[str, str]:
    """Return the asker, whose signature was verified, or "" where nobody is known to have asked, and the code."""
    return str(event[1].get("asker", "")), str(event[1]["code"])


def _said(key: tuple[str, str], tally: _Tally) -> list[Event]:
    """Return the record of a tally's count, which begins anew; nothing for none."""
    if not tally.count:
        return []
    count, tally.count = tally.count, 0
    since = dt.datetime.fromtimestamp(tally.since, dt.UTC).isoformat(timespec="milliseconds")
    return [(COUNTED, {"asker": key[0], "code": key[1], "count": count, "since": since})]
