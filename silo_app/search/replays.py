"""Is a request fresh, and was it not answered before? What a relay recorded must not be asked again."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from silo_app.policy.refusal import RefusalCode
from silo_app.search.messages import Question

__all__ = ["FRESH_S", "SeenQueries"]

FRESH_S = 120.0
"""How far the asker's clock and ours may differ, with the way in between."""


class SeenQueries:
    """Query ids of the last minutes; safe from many threads."""

    def __init__(self, *, fresh_s: float = FRESH_S, limit: int = 1_000_000) -> None:
        self._fresh_s = fresh_s
        self._limit = limit
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()  # (asker, query id) -> when we may forget it
        self._lock = threading.Lock()

    def remember(self, queries: Iterable[tuple[str, str]], now: float) -> None:
        """Count these queries, pairs of asker and query id, as asked: what an earlier process answered."""
        with self._lock:
            for query in queries:
                self._seen[query] = now + 2 * self._fresh_s

    def refusal(self, request: Question, now: float) -> RefusalCode | None:
        """Return why a request must not be answered at `now` (seconds since 1970), or None and remember it."""
        if abs(request.issued_at_ms / 1000 - now) > self._fresh_s:
            return RefusalCode.STALE
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < now:
                self._seen.popitem(last=False)
            query = (request.asker, request.query_id)
            if query in self._seen:
                return RefusalCode.REPLAYED
            if len(self._seen) >= self._limit:
                return RefusalCode.BUSY
            self._seen[query] = now + 2 * self._fresh_s
        return None
