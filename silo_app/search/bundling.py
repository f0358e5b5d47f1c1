"""An asker's queries that are asked at the same time share one signature, one message, and one record: a bundle.

A query that is asked alone goes alone, at once. What is asked while messages are under way is gathered for a moment
(`gather`); a bundle holds queries of one encoder and one budget only, and none that is narrowed waits with those that are
not: silos take longer for it.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from silo_app.errors import BrokerUnreachable
from silo_app.search.gather import Gatherer
from silo_app.search.messages import MAX_BUNDLED, MAX_THUMBNAIL, SearchRequest, SearchResult, SiloAnswer

__all__ = ["Bundler", "Send"]

Send = Callable[[Sequence[SearchRequest], int], Sequence[SearchResult]]
"""Asks requests together, within so many milliseconds, and returns the result of each; whatever it raises, all get."""

_AT_ONCE = 64
_OF_A_HIT = MAX_THUMBNAIL + 512
"""Bytes of a reply, at most."""
_MOST_BYTES = SiloAnswer.max_bytes // 2


@dataclass(eq=False)
class _Waiting:
    request: SearchRequest
    deadline: float
    result: Future[SearchResult] = field(default_factory=Future)

    @property
    def left_ms(self) -> int:
        return int((self.deadline - time.monotonic()) * 1000)

    @property
    def kind(self) -> tuple[str, int, bool]:
        return self.request.encoder_version, self.request.budget_ms, bool(self.request.filters)


class Bundler:
    """Asks from many threads."""

    def __init__(self, send: Send) -> None:
        self._ask_all = send
        self._gatherer: Gatherer[_Waiting] = Gatherer(
            self._send,
            size_of=lambda one: one.request.k * _OF_A_HIT,
            name="asking",
            senders=_AT_ONCE,
            most=MAX_BUNDLED,
            most_bytes=_MOST_BYTES,
        )

    def ask(self, request: SearchRequest) -> SearchResult:
        """Return the result of a request. Raises what `send` does, and `BrokerUnreachable` for too many at a time."""
        one = _Waiting(request, time.monotonic() + request.budget_ms / 1000)
        if not (self._gatherer.alone(one) or self._gatherer.put(one, str(one.kind))):
            raise BrokerUnreachable("this process asks more queries than can be sent", remedy="Ask fewer at a time.")
        return one.result.result()

    def close(self) -> None:
        """Send nothing more; the threads end with their messages."""
        self._gatherer.close()

    def _send(self, waiting: list[_Waiting]) -> None:
        kind = waiting[0].kind
        mine = [one for one in waiting if one.kind == kind]
        for one in waiting:
            if one.kind != kind:
                self._gatherer.again(one, str(one.kind))
        try:
            left_ms = max(1, min(one.left_ms for one in mine))
            results = self._ask_all([one.request for one in mine], left_ms)
            for one, result in zip(mine, results, strict=True):
                one.result.set_result(result)
        except Exception as error:  # noqa: BLE001  (whoever waits must hear of it, whatever it is)
            for one in mine:
                if not one.result.done():
                    one.result.set_exception(error)
