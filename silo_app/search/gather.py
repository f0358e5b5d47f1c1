"""Gather what goes the same way: sent at once while nothing is under way, together with others while something is.

So a single query never waits for company, and many at once share a message. A message that hangs holds up the later
ones for a moment only: after about the time that a message usually takes, they go on their own way.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Gatherer"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

_SHORTEST_S = 0.001
_LONGEST_S = 0.05
_PART_OF_A_TRIP = 0.7
_SMOOTHING = 0.2
_IDLE_S = 10.0
"""After so long a thread with nothing to do ends; whoever comes then starts one anew."""


class Gatherer(Generic[T]):
    """Hands gathered items to `send`, on threads of its own; takes turns between groups, and none takes every place.

    `send` blocks while its message is under way and raises nothing. At most `limit` items wait, at most half of them of
    one group; a message holds items of `most` weight (1 each, unless `weight_of` says more) and `most_bytes`, or one item.
    """

    def __init__(
        self,
        send: Callable[[list[T]], None],
        *,
        size_of: Callable[[T], int],
        weight_of: Callable[[T], int] = lambda _item: 1,
        name: str,
        limit: int = 512,
        senders: int = 4,
        most: int = 64,
        most_bytes: int = 2 * 1024 * 1024,
    ) -> None:
        self._send = send
        self._size_of = size_of
        self._weight_of = weight_of
        self._name = name
        self._limit = limit
        self._senders = senders
        self._most = most
        self._most_bytes = most_bytes
        self._groups: OrderedDict[str, deque[T]] = OrderedDict()
        self._waiting = self._under_way = self._threads = self._idle = 0
        self._oldest = 0.0
        self._trip_s = 0.0
        self._watched = False
        self._closed = False
        self._change = threading.Condition()

    def put(self, item: T, group: str = "") -> bool:
        """Send an item as soon as it may go; False if too many wait already, or too many of its group."""
        with self._change:
            mine = self._groups.get(group)
            if self._closed or self._waiting >= self._limit or (mine and 2 * len(mine) >= self._limit):
                return False
            self._add(item, group)
            return True

    def alone(self, item: T) -> bool:
        """Send an item on the caller's own thread, if nothing is under way and nothing waits; False if something is."""
        with self._change:
            if self._closed or self._under_way or self._waiting:
                return False
            self._under_way += 1
        self._sent([item])
        return True

    def again(self, item: T, group: str = "") -> None:
        """Put an item that was sent before, whatever waits."""
        with self._change:
            self._add(item, group)

    def close(self) -> None:
        """Send nothing more; the threads end when their messages do."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _add(self, item: T, group: str) -> None:
        if not self._waiting:
            self._oldest = time.monotonic()
        self._groups.setdefault(group, deque()).append(item)
        self._waiting += 1
        self._call()

    def _call(self) -> None:
        """See to it that a thread looks at what waits."""
        if not self._idle and self._threads < self._senders and not self._closed:
            self._threads += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        elif not self._under_way or self._waiting >= self._most or not self._watched:
            self._change.notify()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            self._sent(batch)

    def _sent(self, batch: list[T]) -> None:
        start = time.monotonic()
        try:
            self._send(batch)
        except Exception:  # noqa: BLE001  (a bug there must not end the way for everybody)
            _log.exception("%s: a message was not sent", self._name)
        finally:
            with self._change:
                self._under_way -= 1
                self._trip_s += _SMOOTHING * (time.monotonic() - start - self._trip_s)
                if self._waiting and self._threads:
                    self._change.notify()
                elif self._waiting:
                    self._call()

    def _next(self) -> list[T] | None:
        with self._change:
            while not self._closed:
                wait_s = self._wait_s()
                if wait_s is not None and wait_s <= 0:
                    self._under_way += 1
                    batch = self._take()
                    if self._waiting:
                        self._call()
                    return batch
                if not self._rest(wait_s) and not self._waiting:
                    break
            self._threads -= 1
            return None

    def _wait_s(self) -> float | None:
        """Return how long what waits has to wait for company yet; None if nothing waits, or another thread looks."""
        if not self._waiting:
            return None
        if not self._under_way or self._waiting >= self._most:
            return 0.0
        longest = min(_LONGEST_S, max(_SHORTEST_S, _PART_OF_A_TRIP * self._trip_s))
        left = self._oldest + longest - time.monotonic()
        return None if left > 0 and self._watched else left

    def _rest(self, wait_s: float | None) -> bool:
        """Wait until something changes, or for as long as is to be waited; False if nothing did for long."""
        watches = wait_s is not None
        self._watched = self._watched or watches
        self._idle += 1
        woken = self._change.wait(_IDLE_S if wait_s is None else wait_s)
        self._idle -= 1
        if watches:
            self._watched = False
        return woken or watches

    def _take(self) -> list[T]:
        """Return the next items, one of each group in turn, as many as one message holds."""
        batch: list[T] = []
        room, places = self._most_bytes, self._most
        while self._groups and places > 0:
            group, items = next(iter(self._groups.items()))
            room -= self._size_of(items[0])
            places -= self._weight_of(items[0])
            if batch and (room < 0 or places < 0):
                break
            batch.append(items.popleft())
            del self._groups[group]
            if items:
                self._groups[group] = items  # to the end: the next group's turn
        self._waiting -= len(batch)
        self._oldest = time.monotonic()  # of those that are left: not older than the message that they just missed
        return batch
