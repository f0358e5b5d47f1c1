"""Is a request fresh, and was it not answered before? What a relay recorded must not be asked again."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from silo_app.policy.refusal import RefusalCode
from silo_app.search.messages import Question

__all__ = ["FRESH_S", "SeenQueries"]

FRESH_S = 120.0
"""How far the asker's clock and ours may differ, with the way in between."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The queries of a stretch of time, which are forgotten together."""

    until: float
    forgotten_at: float
    queries: dict[str, set[bytes]] = field(default_factory=dict)
    """By asker."""


class SeenQueries:
    """Query ids of the last minutes, a share for each asker: who asks too much keeps nobody out. Safe from many threads."""

    def __init__(self, *, fresh_s: float = FRESH_S, limit: int = 250_000) -> None:
        self._fresh_s = fresh_s
        self._limit = limit
        self._parts: deque[_Part] = deque()
        self._lock = threading.Lock()

    def remember(self, queries: Iterable[tuple[str, str]], now: float) -> None:
        """Count these queries, pairs of asker and query id, as asked: what an earlier process answered."""
        with self._lock:
            current = self._current(now)
            for asker, query in queries:
                current.setdefault(asker, set()).add(_key(query))

    def refusal(self, request: Question, now: float) -> RefusalCode | None:
        """Return why a request must not be answered at `now` (seconds since 1970), or None and remember it."""
        if abs(request.issued_at_ms / 1000 - now) > self._fresh_s:
            return RefusalCode.STALE
        key = _key(request.query_id)
        with self._lock:
            current = self._current(now).setdefault(request.asker, set())
            own = [part.queries.get(request.asker, set()) for part in self._parts]
            if any(key in queries for queries in own):
                return RefusalCode.REPLAYED
            if sum(map(len, own)) >= self._limit:
                return RefusalCode.BUSY
            current.add(key)
        return None

    def _current(self, now: float) -> dict[str, set[bytes]]:
        """Return what is asked now goes into, and forget those that no copy can be fresh of any more."""
        while self._parts and self._parts[0].forgotten_at <= now:
            self._parts.popleft()
        if not self._parts or self._parts[-1].until <= now:
            self._parts.append(_Part(now + self._fresh_s, now + 3 * self._fresh_s))
        return self._parts[-1].queries


def _key(query: str) -> bytes:
    """Return it as few bytes: a busy silo remembers many. A query id is hexadecimal; what is not was no query's."""
    try:
        return bytes.fromhex(query)
    except ValueError:
        return b""
