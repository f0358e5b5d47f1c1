"""How many searches there is time for, by how long the last ones took.

A silo that is asked more than it can answer would otherwise search for all of it, and be late with everything.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Pace"]

_AT_ONCE = 0.4
"""Of the time that is left, what the next ones may take: then it is seen how many more there is time for."""
_LAST = 0.8
"""Of the time that is left, what one more may take: the rest is for the record and the way back."""
_NEW = 0.3
"""How much the last ones say beside those before them."""


class Pace:
    """Of one index process; for many threads."""

    def __init__(self) -> None:
        self._each_s = 0.0
        self._lock = threading.Lock()

    def allows(self, left_s: float, *, is_known: bool = True) -> bool:
        """Return whether there is time for one more; unless it is known how long that takes, for any time that is left."""
        return left_s > 0 and not (is_known and self._each_s > _LAST * left_s)

    def fitting(self, left_s: float, count: int) -> int:
        """Return how many of `count` searches should be made next, at once; at least one, as while nothing is known."""
        many = int(_AT_ONCE * left_s / self._each_s) if self._each_s else 1
        return min(count, max(1, many))

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Note how long `count` searches take, at least one, which are made within the block."""
        start = time.perf_counter()
        yield
        each_s = (time.perf_counter() - start) / count
        with self._lock:
            self._each_s += (_NEW if self._each_s else 1.0) * (each_s - self._each_s)
