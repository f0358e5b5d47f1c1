"""Ask every silo at once under one deadline, and report what each of them did.

A silo that is late, gone, refusing or talking nonsense costs its own hits, never the query. The broker relays signed
requests as they are and enforces no policy: that is each silo's own.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from silo_app.errors import MessageInvalid, SiloscopeError
from silo_app.policy.refusal import RefusalCode
from silo_app.search.envelope import peek_request
from silo_app.search.merge import merge
from silo_app.search.messages import (
    ErrorMessage,
    Message,
    Refusal,
    Relay,
    Relayed,
    SearchRequest,
    SearchResult,
    SiloAnswer,
    SiloReport,
    Silos,
    SiloState,
    Who,
)
from silo_app.search.transport import SiloLate, SiloUnreachable, Transport
from silo_app.search.wire import decode, encode

__all__ = ["STATE_OF_CODE", "Broker"]

_log = logging.getLogger(__name__)
_R = TypeVar("_R")

STATE_OF_CODE = {
    RefusalCode.BUSY: SiloState.BUSY,
    RefusalCode.OTHER_ENCODER: SiloState.OTHER_ENCODER,
    RefusalCode.NOT_READY: SiloState.NOT_READY,
    RefusalCode.INDEX_DAMAGED: SiloState.ERROR,
    RefusalCode.INTERNAL: SiloState.ERROR,
}
"""Every other code is the silo's own decision: denied."""


@dataclass(frozen=True, slots=True)
class _Reply:
    report: SiloReport
    answer: SiloAnswer | None = None


class _Line:
    """The threads that wait for one silo; each silo has its own, so that one that hangs holds up no other."""

    def __init__(self, silo: str, limit: int) -> None:
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix=f"ask-{silo}")
        self._limit = limit
        self._waiting: set[Future[Any]] = set()

    def submit(self, ask: Callable[[], _R]) -> Future[_R] | None:
        """Start to ask; None if as many queries as allowed still wait for this silo."""
        if len(self._waiting) >= self._limit:
            return None
        future = self._pool.submit(ask)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Broker:
    """Answers queries from any thread, for the silos of the federation, whether they are connected or not."""

    def __init__(
        self, transport: Transport, silos: Sequence[str], *, budget_ms: int = 1000, in_flight_per_silo: int = 32
    ) -> None:
        self._transport = transport
        self._budget_ms = budget_ms
        self._lines = {silo: _Line(silo, in_flight_per_silo) for silo in sorted(set(silos))}

    def search(self, frame: bytes) -> bytes:
        """Return the result of a signed request, or what one silo says to a private one, or an error; never raises."""
        try:
            return encode(self._served(frame))
        except SiloscopeError as error:
            _log.warning("a query was refused: %s", error.code)
            return encode(ErrorMessage(code=error.code, public=error.public))
        except Exception:  # noqa: BLE001  (the asker must hear that we failed, not wait)
            _log.exception("a query failed")
            return encode(ErrorMessage(code=SiloscopeError.code, public=SiloscopeError.public))

    def ask_all(self, frame: bytes) -> SearchResult:
        """Relay a signed request to every silo and merge what comes back in time. Raises `ProtocolError`."""
        start = time.monotonic()
        request = peek_request(frame)
        budget_s = min(request.budget_ms, self._budget_ms) / 1000
        replies = self._collect(request, frame, start, budget_s)
        hits = merge((reply.answer for reply in replies if reply.answer is not None), request.k)
        return SearchResult(
            query_id=request.query_id,
            encoder_version=request.encoder_version,
            k=request.k,
            hits=hits,
            silos=tuple(reply.report for reply in replies),
            took_us=int((time.monotonic() - start) * 1e6),
        )

    def relay(self, message: Relay) -> Relayed:
        """Pass a signed question to one silo, and its reply back unread: of a private search nobody else reads anything."""
        start = time.monotonic()
        line = self._lines.get(message.silo)
        if line is None:
            return Relayed(silo=message.silo, state=SiloState.UNREACHABLE)
        budget_s = message.budget_ms / 1000
        future = line.submit(lambda: self._passed(message, start, budget_s))
        if future is None:
            return Relayed(silo=message.silo, state=SiloState.BUSY)
        try:
            return future.result(timeout=budget_s)
        except TimeoutError:
            return Relayed(silo=message.silo, state=SiloState.LATE, took_ms=_ms_since(start))

    def close(self) -> None:
        """Ask nobody any more; threads that wait for a reply end with it."""
        for line in self._lines.values():
            line.close()

    def _served(self, frame: bytes) -> Message:
        try:
            message = decode(frame, Relay, Who)
        except MessageInvalid:  # the rule: a signed request to all
            return self.ask_all(frame)
        return self.relay(message) if isinstance(message, Relay) else Silos(silos=tuple(self._lines))

    def _passed(self, message: Relay, start: float, budget_s: float) -> Relayed:
        state, content = SiloState.ANSWERED, b""
        try:
            content = self._transport.ask(message.silo, message.frame, budget_s)
        except SiloLate:
            state = SiloState.LATE
        except SiloUnreachable:
            state = SiloState.UNREACHABLE
        except Exception:  # noqa: BLE001  (the asker must hear that we failed, not wait)
            _log.exception("asking %s failed", message.silo)
            state = SiloState.ERROR
        return Relayed(silo=message.silo, state=state, took_ms=_ms_since(start), content=content)

    def _collect(self, request: SearchRequest, frame: bytes, start: float, budget_s: float) -> list[_Reply]:
        def asking(silo: str) -> Callable[[], _Reply]:
            return lambda: self._ask(silo, request, frame, start + budget_s)

        futures = {silo: line.submit(asking(silo)) for silo, line in self._lines.items()}
        pending = [future for future in futures.values() if future is not None]
        done, _ = wait(pending, timeout=max(0.0, start + budget_s - time.monotonic()))
        replies = []
        for silo, future in futures.items():
            if future is None:
                replies.append(_Reply(SiloReport(silo=silo, state=SiloState.BUSY, code="too-many-in-flight")))
            elif future in done:
                replies.append(future.result())
            else:
                replies.append(_late(silo, start))
        return replies

    def _ask(self, silo: str, request: SearchRequest, frame: bytes, deadline: float) -> _Reply:
        start = time.monotonic()
        try:
            content = self._transport.ask(silo, frame, max(0.001, deadline - start))
            return _read(silo, request, content, _ms_since(start))
        except SiloLate:
            return _late(silo, start)
        except SiloUnreachable:
            return _Reply(SiloReport(silo=silo, state=SiloState.UNREACHABLE, took_ms=_ms_since(start)))
        except MessageInvalid as error:
            _log.warning("%s sent what is no answer: %s", silo, error.problem)
            return _error(silo, "answer-invalid", start)
        except Exception:  # noqa: BLE001  (one silo's failure must not be the query's)
            _log.exception("asking %s failed", silo)
            return _error(silo, "internal", start)


def _read(silo: str, request: SearchRequest, content: bytes, took_ms: float) -> _Reply:
    """Turn a silo's bytes into its reply. Raises `MessageInvalid` for anything but an answer to this request."""
    message: SiloAnswer | Refusal = decode(content, SiloAnswer, Refusal)
    if isinstance(message, Refusal):
        _require(message.silo == silo, "it names another silo")
        _require(message.query_id in {"", request.query_id}, "it refuses another query")
        state = STATE_OF_CODE.get(message.code, SiloState.DENIED)
        return _Reply(
            SiloReport(
                silo=silo,
                state=state,
                code=message.code.value,
                public=message.public,
                took_ms=took_ms,
                encoder_version=message.encoder_version,
            )
        )
    _require_answer(silo, request, message)
    return _Reply(
        SiloReport(
            silo=silo,
            state=SiloState.ANSWERED,
            took_ms=took_ms,
            indexed=message.indexed,
            released=len(message.hits),
            generation=message.generation,
            encoder_version=message.encoder_version,
        ),
        message,
    )


def _require_answer(silo: str, request: SearchRequest, answer: SiloAnswer) -> None:
    _require(answer.silo == silo, "it names another silo")
    _require(answer.query_id == request.query_id, "it answers another query")
    _require(answer.encoder_version == request.encoder_version, "it is of another encoder")
    _require(len(answer.hits) <= min(request.k, answer.indexed), "it has more hits than asked for or indexed")
    _require(len({hit.case for hit in answer.hits}) == len(answer.hits), "it names a case twice")


def _require(holds: bool, problem: str) -> None:  # noqa: FBT001  (reads as the sentence that it is)
    if not holds:
        raise MessageInvalid(problem, where="answer", remedy="Nothing of the answer was used; look at that silo.")


def _late(silo: str, start: float) -> _Reply:
    return _Reply(SiloReport(silo=silo, state=SiloState.LATE, code="no-answer-in-time", took_ms=_ms_since(start)))


def _error(silo: str, code: str, start: float) -> _Reply:
    return _Reply(SiloReport(silo=silo, state=SiloState.ERROR, code=code, took_ms=_ms_since(start)))


def _ms_since(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 3)
