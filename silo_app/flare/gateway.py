"""The gateway of a silo: relays bytes between the federation and the silo's own processes, and decides nothing.

It lives in the site's parent process, by the site's own configuration (`local/resources.json`, components), because what
lives in a job's process takes the job down when it dies. The silo's index process holds index, policy and audit; when it
is down, only this silo's answers are missing.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from silo_app import config
from silo_app.config import SiloHome
from silo_app.errors import BrokerUnreachable, MessageInvalid, ProcessFailed, SiloscopeError
from silo_app.flare import cells, words
from silo_app.flare.site import kit_of
from silo_app.search.envelope import budget_of, is_question
from silo_app.search.local import Connections, FrameServer, error_frame
from silo_app.search.meeting import VOUCHER_ASKED

_log = logging.getLogger(__name__)
_MARGIN_S = 0.08
"""How much longer than its own budget anybody waits for a query here; the broker ends before that budget does."""
_THREADS = 32
_VOUCHER_S = 1.0
_BROKER_PREFIX = "server."


class SiloGateway(FLComponent):  # type: ignore[misc]
    """Listens on the federation's messaging for the broker, and on a 0600 socket for the hospital's own askers."""

    def __init__(self) -> None:
        super().__init__()
        self._broker = ""
        self._lock = threading.Lock()
        self._server: FrameServer | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Start with the site's parent process, and stop with it."""
        if event_type == EventType.SYSTEM_START:
            try:
                self._start(fl_ctx)
            except SiloscopeError as error:
                _log.error("the gateway of this silo did not start: %s", error)
        elif event_type == EventType.SYSTEM_END and self._server is not None:
            self._server.close()

    def _start(self, fl_ctx: FLContext) -> None:
        self._home: SiloHome = config.load(kit_of(fl_ctx))
        self._core: Any = cells.core_of(fl_ctx.get_engine())
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="silo-gateway")
        engine = fl_ctx.get_engine()

        def alive(_origin: str, job: bytes) -> bytes:
            """Say whether the process of a job runs here; without a job, whether this one does."""
            return words.HERE if not job or job.decode() in engine.get_all_job_ids() else words.ENDED

        self._index = Connections(self._home.index_socket)
        cells.listen(self._core, words.TOPIC_ALIVE, alive, pool)
        cells.listen(self._core, words.TOPIC_ANNOUNCE, self._announced, pool)
        cells.listen(self._core, words.TOPIC_ASK, self._asked, pool)
        self._server = FrameServer(self._home.gateway_socket, self._query)
        self._server.start()
        _log.info("the gateway of %s is up", self._home.config.name)

    def _announced(self, origin: str, payload: bytes) -> bytes:
        """Remember the broker, a job process of the server and nobody else, and tell it the index process's keys."""
        del payload
        if origin.startswith(_BROKER_PREFIX):
            with self._lock:
                self._broker = origin
        try:
            return self._index.exchange(VOUCHER_ASKED, _VOUCHER_S)
        except ProcessFailed:
            return b""

    def _asked(self, origin: str, payload: bytes) -> bytes:
        """Let the silo's index process answer; it verifies who asks. What it tells its own hospital alone is no question."""
        if not is_question(payload):
            _log.warning("what %s sent is no question, and was not passed on", origin)
            raise MessageInvalid(
                "it is no question", where="gateway", remedy="Compare the versions of siloscope on both sides."
            )
        return self._index.exchange(payload, budget_of(payload) / 1000 + _MARGIN_S)

    def _query(self, frame: bytes) -> bytes:
        """Pass a query of this hospital to the broker."""
        try:
            return self._to_broker(frame, budget_of(frame) / 1000 + _MARGIN_S)
        except BrokerUnreachable as error:
            return error_frame(error)

    def _to_broker(self, message: bytes, timeout_s: float) -> bytes:
        with self._lock:
            broker = self._broker
        if not broker:
            raise _no_broker("no broker has announced itself yet")
        try:
            return cells.request(self._core, words.TOPIC_QUERY, broker, message, timeout_s)
        except cells.CellTimeout:
            raise _no_broker("the broker does not answer in time") from None
        except cells.CellUnreachable:
            with self._lock:
                if self._broker == broker:
                    self._broker = ""  # the next announcement, within seconds, names the living one
            raise _no_broker("the broker is not there") from None


def _no_broker(problem: str) -> BrokerUnreachable:
    return BrokerUnreachable(
        problem, remedy="Is the job `search` running? `silo job submit jobs/search` starts it; wait some seconds."
    )
