"""Ask every silo at once under one deadline, and report what each of them did.

A silo that is late, gone or refusing costs its own hits, never the query. The broker relays signed requests and sealed
replies as they are: it cannot read what a silo replied, and enforces no policy: that is each silo's own. No query holds a
thread: many may be in flight.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from silo_app.errors import ConfigInvalid, MessageInvalid, SiloscopeError
from silo_app.search.envelope import peek_request
from silo_app.search.gathering import Deadlines, Gathering
from silo_app.search.line import Line, reached
from silo_app.search.messages import (
    MAX_VOUCHER,
    MOST_MS,
    ErrorMessage,
    Relay,
    Relayed,
    SearchResult,
    Silos,
    SiloState,
    Who,
)
from silo_app.search.sealed import Broadcast
from silo_app.search.transport import Transport
from silo_app.search.wire import decode, encode

__all__ = ["Broker", "Done"]

_log = logging.getLogger(__name__)

Done = Callable[[bytes], None]
"""Takes the reply to a frame; called exactly once, from any thread."""

_SHARE_OF_BUDGET = 0.95
"""The rest of a query's time is for its result's way to the asker."""
_PROBE_EVERY_S = 0.1
_RELAYS = 8
"""Private questions that one silo has at a time; each takes long."""


def _require_times(budget_ms: int, longest_ms: int) -> None:
    """Raise `ConfigInvalid` unless silos can be given so many milliseconds."""
    if not (0 < budget_ms <= MOST_MS and 0 < longest_ms <= MOST_MS):
        raise ConfigInvalid(
            f"silos cannot be given {budget_ms} ms, or {longest_ms} ms at most: between 1 and {MOST_MS}",
            where="jobs/search: silo_budget_ms, longest_budget_ms",
            remedy="Correct them and submit the job again.",
        )


class Broker:
    """Answers queries from any thread, for the silos of the federation, whether they are connected or not."""

    def __init__(
        self,
        transport: Transport,
        silos: Sequence[str],
        *,
        budget_ms: int = 1000,
        longest_ms: int = MOST_MS,
        in_flight_per_silo: int = 512,
    ) -> None:
        """Have those who say no time give `budget_ms`, and give nobody more than `longest_ms`. Raises `ConfigInvalid`."""
        _require_times(budget_ms, longest_ms)
        self._transport = transport
        self._longest_ms = longest_ms
        self._budget_ms = min(budget_ms, longest_ms)
        self._in_flight = in_flight_per_silo
        self._lines: dict[str, Line] = {}
        self._relays: dict[str, _Relays] = {}
        self._vouchers: dict[str, bytes] = {}
        self.ask_these(silos)
        self._deadlines = Deadlines()
        self._closed = threading.Event()
        threading.Thread(target=self._probe, name="probes", daemon=True).start()

    def ask_these(self, silos: Sequence[str]) -> None:
        """Have these silos asked from now on, and no others: one joined the federation, or left it. From one thread."""
        left = [part[silo] for part in (self._lines, self._relays) for silo in part if silo not in silos]
        names = sorted(set(silos))
        self._lines = {silo: self._lines.get(silo) or self._line(silo) for silo in names}
        self._relays = {silo: self._relays.get(silo) or _Relays(silo) for silo in names}
        self._vouchers = {silo: voucher for silo, voucher in self._vouchers.items() if silo in names}
        for part in left:
            part.close()

    def met(self, silo: str, voucher: bytes) -> None:
        """Take note of a silo's voucher for its keys, as its gateway gave it; empty is none."""
        if silo in self._lines and 0 < len(voucher) <= MAX_VOUCHER:
            self._vouchers[silo] = voucher

    def start(self, frame: bytes, done: Done, *, asker: str = "") -> None:
        """Begin to serve a frame and return: a signed request to all, a private one to one silo, or who is there.

        `done` gets the result, or an error. `asker` is whose frame it is: askers take turns.
        """
        try:
            self._start(frame, done, asker)
        except SiloscopeError as error:
            _log.warning("a query was refused: %s", error.code)
            done(encode(ErrorMessage(code=error.code, public=error.public)))
        except Exception:  # noqa: BLE001  (the asker must hear that we failed, not wait)
            _log.exception("a query failed")
            done(_failed())

    def search(self, frame: bytes) -> bytes:
        """Serve a frame and return what `start` gives; never raises."""
        reply: Future[bytes] = Future()
        self.start(frame, reply.set_result)
        return reply.result()

    def ask_all(self, frame: bytes, asker: str = "") -> SearchResult:
        """Relay a signed request to every silo and return what comes back in time, sealed. Raises `ProtocolError`."""
        over: Future[Gathering] = Future()
        self._ask_all(frame, over.set_result, asker)
        return over.result().result()

    def relay(self, message: Relay) -> Relayed:
        """Pass a signed question to one silo, and its reply back unread: of a private search nobody else reads anything."""
        start = time.monotonic()
        relays = self._relays.get(message.silo)
        if relays is None:
            return Relayed(silo=message.silo, state=SiloState.UNREACHABLE)
        budget_s = min(message.budget_ms, self._longest_ms) / 1000
        future = relays.submit(lambda: reached(self._transport, message.silo, message.frame, budget_s))
        if future is None:
            return Relayed(silo=message.silo, state=SiloState.BUSY)
        try:
            state, content = future.result(timeout=budget_s)
        except TimeoutError:
            state, content = SiloState.LATE, b""
        return Relayed(silo=message.silo, state=state, took_ms=_ms_since(start), content=content)

    def close(self) -> None:
        """Ask nobody any more; threads that wait for a reply end with it."""
        self._closed.set()
        self._deadlines.close()
        for line in self._lines.values():
            line.close()
        for relays in self._relays.values():
            relays.close()

    def _start(self, frame: bytes, done: Done, asker: str) -> None:
        try:
            message = decode(frame, Broadcast, Relay, Who)
        except MessageInvalid:  # a signed request to all
            self._ask_all(frame, lambda query: done(_result_of(query)), asker)
            return
        if isinstance(message, Broadcast):
            self._ask_all(message.frame, lambda query: done(_result_of(query)), asker, message)
        elif isinstance(message, Who):
            done(encode(self._who()))
        else:
            threading.Thread(target=lambda: done(encode(self.relay(message))), name="relay", daemon=True).start()

    def _line(self, silo: str) -> Line:
        return Line(silo, self._transport, in_flight=self._in_flight, usual_s=self._budget_ms / 1000)

    def _who(self) -> Silos:
        return Silos(
            silos=tuple(self._lines),
            at_ms=int(time.time() * 1000),
            vouchers=dict(self._vouchers),
            budget_ms=self._budget_ms,
            longest_ms=self._longest_ms,
        )

    def _ask_all(
        self, frame: bytes, over: Callable[[Gathering], None], asker: str, broadcast: Broadcast | None = None
    ) -> None:
        request = peek_request(frame)
        left_ms = min(request.budget_ms, broadcast.budget_ms if broadcast else request.budget_ms, self._longest_ms)
        budget_s = left_ms / 1000 * _SHARE_OF_BUDGET
        lines = self._lines  # which may become others
        asked = [silo for silo in lines if broadcast is None or _is_asked(broadcast, silo)]
        query = Gathering(request, frame, tuple(asked), budget_s, over, broadcast.keys if broadcast else {})
        if not asked:
            query.expire()
            return
        self._deadlines.add(query)
        for silo in asked:
            lines[silo].ask(query, asker)

    def _probe(self) -> None:
        """Look for the silos that are left alone, each on a thread of its own: one may hang."""
        while not self._closed.wait(_PROBE_EVERY_S):
            for line in self._lines.values():
                if line.breaker.wants_probe():
                    threading.Thread(target=line.probe, name="probe", daemon=True).start()


class _Relays:
    """The threads that wait for one silo's private answers."""

    def __init__(self, silo: str) -> None:
        self._pool = ThreadPoolExecutor(_RELAYS, thread_name_prefix=f"relay-{silo}")
        self._waiting: set[Future[tuple[SiloState, bytes]]] = set()

    def submit(self, ask: Callable[[], tuple[SiloState, bytes]]) -> Future[tuple[SiloState, bytes]] | None:
        """Start to ask; None if as many questions as allowed still wait for this silo."""
        if len(self._waiting) >= _RELAYS:
            return None
        future = self._pool.submit(ask)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _is_asked(broadcast: Broadcast, silo: str) -> bool:
    return silo != broadcast.without and (not broadcast.only or silo in broadcast.only)


def _result_of(query: Gathering) -> bytes:
    try:
        return encode(query.result())
    except Exception:  # noqa: BLE001  (the asker must hear that we failed, not wait)
        _log.exception("a query failed")
        return _failed()


def _failed() -> bytes:
    return encode(ErrorMessage(code=SiloscopeError.code, public=SiloscopeError.public))


def _ms_since(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 3)
