"""The asker's own silo is asked without the network: its index process listens on a socket of the same machine.

So a hospital's own cases are found also when the federation's server, or the way there, is down; and what is asked of the
own silo, and what it says, never leaves the house.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from silo_app.errors import ProcessFailed
from silo_app.search.breaker import Breaker
from silo_app.search.gathering import Reply
from silo_app.search.local import Connections
from silo_app.search.meeting import VOUCHER_ASKED
from silo_app.search.messages import Sealed, SearchResult, SiloReport, SiloState
from silo_app.search.parcels import Parcel, alone, pack, unpacked_alone

__all__ = ["OwnSilo", "with_own"]

_AT_ONCE = 64
_PATIENCE_S = 0.5
_PROBE_S = 1.0
_VOUCHER_S = 0.1


class OwnSilo:
    """The way to the index process of the asker's own silo; for many threads."""

    def __init__(self, silo: str, socket: Path) -> None:
        self._silo = silo
        self._connections = Connections(socket)
        self._breaker = Breaker(time.monotonic, _PATIENCE_S)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="own")

    @property
    def is_there(self) -> bool:
        """Whether it listens; if it does not, the broker is asked for it as for any other, and says what it sees."""
        return self._breaker.left_alone is not None or self._connections.reaches()

    def voucher(self) -> bytes:
        """Return the voucher for its session's keys; empty if it does not say."""
        return self._exchanged(VOUCHER_ASKED, _VOUCHER_S)[1]

    def begin(self, frame: bytes, budget_ms: int) -> "Future[Reply]":
        """Ask it a signed request, on another thread; the future raises nothing.

        One that did not reply several times is not waited for until it is seen again, as the broker does with the others.
        """
        if (state := self._breaker.left_alone) is None:
            return self._pool.submit(self._asked, frame, budget_ms)
        if self._breaker.wants_probe():
            self._pool.submit(self._probe)
        nothing: Future[Reply] = Future()
        nothing.set_result(Reply(SiloReport(silo=self._silo, state=state, code="left-alone")))
        return nothing

    def close(self) -> None:
        """End threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._connections.close()

    def _asked(self, frame: bytes, budget_ms: int) -> Reply:
        start = time.monotonic()
        state, content = self._exchanged(alone(frame, budget_ms), budget_ms / 1000)
        self._breaker.asked(state, budget_ms / 1000)
        code = "no-answer-in-time" if state is SiloState.LATE else ""
        took_ms = round((time.monotonic() - start) * 1000, 3)
        return Reply(SiloReport(silo=self._silo, state=state, code=code, took_ms=took_ms), unpacked_alone(content))

    def _probe(self) -> None:
        self._breaker.probed(self._exchanged(pack(Parcel()), _PROBE_S)[0])

    def _exchanged(self, frame: bytes, budget_s: float) -> tuple[SiloState, bytes]:
        end = time.monotonic() + budget_s
        try:
            return SiloState.ANSWERED, self._connections.exchange(frame, budget_s)
        except ProcessFailed:
            return (SiloState.LATE if time.monotonic() >= end else SiloState.UNREACHABLE), b""


def with_own(result: SearchResult, own: Reply) -> SearchResult:
    """Return the broker's result of the other silos with the own silo's reply in its place, still sealed."""
    name = own.report.silo
    silos = [own.report, *(report for report in result.silos if report.silo != name)]
    sealed = [one for one in result.sealed if one.silo != name]
    if own.content:
        sealed.append(Sealed(silo=name, content=own.content))
    return result.model_copy(update={"silos": tuple(sorted(silos, key=lambda report: report.silo)), "sealed": tuple(sealed)})
