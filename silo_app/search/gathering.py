"""One query, or a bundle of them, while its silos are asked: who has replied, and the result when all have, or in time."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from silo_app.search.envelope import keyed
from silo_app.search.messages import Bundle, Sealed, SearchRequest, SearchResult, SiloReport, SiloState
from silo_app.search.room import left_out
from silo_app.search.sealed import SealedRequest

__all__ = ["Deadlines", "Gathering", "Reply"]

_ROOM = SearchResult.max_bytes - 1024 * 1024
"""Bytes of a result for what silos say; the rest is for what is said of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one silo gave to one query."""

    report: SiloReport
    content: bytes = b""
    """As the silo sealed it; empty where the broker speaks for it."""


class Gathering:
    """Collects the replies to one request; calls `done` exactly once, on the thread of the last reply or of the clock."""

    def __init__(
        self,
        request: SearchRequest | Bundle | SealedRequest,
        frame: bytes,
        silos: Sequence[str],
        budget_s: float,
        done: Callable[["Gathering"], None],
        keys: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        self.request = request
        self.frame = frame
        self._keys = keys
        self.budget_s = budget_s
        self.start = time.monotonic()
        self.deadline = self.start + budget_s
        self._silos = silos
        self._done = done
        self._replies: dict[str, Reply] = {}
        self._over = False
        self._lock = threading.Lock()

    @property
    def queries(self) -> int:
        """How many questions it is."""
        if isinstance(self.request, Bundle):
            return len(self.request.requests)
        return self.request.queries if isinstance(self.request, SealedRequest) else 1

    def frame_for(self, silo: str) -> bytes:
        """Return what is sent to a silo: the request that all get, with what opens it for this one."""
        return keyed(self.frame, self._keys.get(silo))

    @property
    def left_s(self) -> float:
        """What is left of its time, seconds."""
        return self.deadline - time.monotonic()

    @property
    def took_ms(self) -> float:
        """Time since it began."""
        return round((time.monotonic() - self.start) * 1000, 3)

    @property
    def over(self) -> bool:
        """Whether its result is made: what still comes is too late."""
        return self._over

    def heard(self, silo: str, reply: Reply) -> None:
        """Take a silo's reply; a second one of the same silo counts for nothing."""
        with self._lock:
            self._replies.setdefault(silo, reply)
            last = len(self._replies) == len(self._silos) and not self._over
            self._over = self._over or last
        if last:
            self._done(self)

    def expire(self) -> None:
        """Its time is over: who has not replied is late."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self._done(self)

    def result(self) -> SearchResult:
        """Return what came in time, as the silos sealed it: the asker merges that.

        What is more than one result holds is left out, the largest first: one silo's flood costs its own answer.
        """
        replies = [self._replies.get(silo) or self.late(silo) for silo in self._silos]
        for place in left_out([len(reply.content) for reply in replies], _ROOM):
            replies[place] = self.state(self._silos[place], SiloState.ERROR, "answer-too-large")
        return SearchResult(
            query_id=self.request.query_id,
            encoder_version=self.request.encoder_version,
            k=self.request.k,
            hits=(),
            silos=tuple(reply.report for reply in replies),
            sealed=tuple(Sealed(silo=reply.report.silo, content=reply.content) for reply in replies if reply.content),
            took_us=int((time.monotonic() - self.start) * 1e6),
        )

    def late(self, silo: str) -> Reply:
        """Return the reply of a silo that gave none."""
        return self.state(silo, SiloState.LATE, "no-answer-in-time")

    def state(self, silo: str, state: SiloState, code: str = "") -> Reply:
        """Return the reply of a silo that has no answer."""
        return Reply(SiloReport(silo=silo, state=state, code=code, took_ms=self.took_ms))


class Deadlines:
    """One clock for all queries in flight: ends each when its time is over, however its silos hang."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Gathering]] = []
        self._number = itertools.count()
        self._change = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, gathering: Gathering) -> None:
        """Watch a query."""
        with self._change:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            heapq.heappush(self._due, (gathering.deadline, next(self._number), gathering))
            if self._due[0][2] is gathering:
                self._change.notify()

    def close(self) -> None:
        """Watch no more."""
        with self._change:
            self._closed = True
            self._change.notify()

    def _watch(self) -> None:
        while (gathering := self._next()) is not None:
            gathering.expire()

    def _next(self) -> Gathering | None:
        with self._change:
            while not self._closed:
                while self._due and self._due[0][2].over:
                    heapq.heappop(self._due)
                if not self._due:
                    self._change.wait()
                elif (left := self._due[0][0] - time.monotonic()) > 0:
                    self._change.wait(left)
                else:
                    return heapq.heappop(self._due)[2]
            return None
