"""`jobs/search` on the server: announces itself to every silo, and runs each query through `search.broker`."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal

from silo_app.encoder.checked_plan import checked_plan
from silo_app.errors import SiloscopeError
from silo_app.flare import cells, words
from silo_app.flare.consortium_file import read_members
from silo_app.flare.containment import contain
from silo_app.flare.plans import SearchPlan
from silo_app.flare.site import kit_of
from silo_app.search.broker import Broker
from silo_app.search.messages import MOST_MS
from silo_app.search.transport import SiloLate, SiloUnreachable

_log = logging.getLogger(__name__)
_THREADS = 64
_ANNOUNCE_TIMEOUT_S = 2.0


class CellTransport:
    """`search.transport.Transport` over NVFlare's connections, which the hospitals opened."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def ask(self, silo: str, message: bytes, budget_s: float) -> bytes:
        """Send a signed request to one silo's gateway. Raises `SiloLate`, `SiloUnreachable`."""
        try:
            return cells.request(self._core, words.TOPIC_ASK, silo, message, budget_s)
        except cells.CellTimeout:
            raise SiloLate(silo) from None
        except cells.CellUnreachable:
            raise SiloUnreachable(silo) from None


class SearchBroker(Controller):  # type: ignore[misc]
    """The long-running search job; its settings are milliseconds for who says none, and at most."""

    def __init__(self, silo_budget_ms: int = 1000, longest_budget_ms: int = MOST_MS, announce_every_s: float = 3.0) -> None:
        super().__init__()
        times = {"silo_budget_ms": silo_budget_ms, "longest_budget_ms": longest_budget_ms}
        plan = checked_plan(SearchPlan, {**times, "announce_every_s": announce_every_s})
        self._budget_ms, self._longest_ms = plan.silo_budget_ms, plan.longest_budget_ms
        self._announce_every_s = plan.announce_every_s

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Read who is in the federation."""
        contain(fl_ctx)
        try:
            self._kit = kit_of(fl_ctx)
            self._silos = read_members(self._kit).silos
        except SiloscopeError as error:
            self.system_panic(str(error), fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to release: the process ends with the job."""

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """There are no tasks in this job."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Listen for queries until the job is aborted; meanwhile announce, so that silos that come back are found."""
        core = cells.core_of(fl_ctx.get_engine())
        broker = Broker(CellTransport(core), self._silos, budget_ms=self._budget_ms, longest_ms=self._longest_ms)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="broker") as pool:
            cells.serve(core, words.TOPIC_QUERY, lambda asker, frame, reply: broker.start(frame, reply, asker=asker), pool)
            self.log_info(fl_ctx, f"the search broker is up for {', '.join(self._silos)}")
            while not abort_signal.triggered:
                self._follow_members(broker, fl_ctx)
                for silo in self._silos:
                    pool.submit(_announce, core, silo, broker)
                _sleep(self._announce_every_s, abort_signal)

    def _follow_members(self, broker: Broker, fl_ctx: FLContext) -> None:
        """Have those asked who are in the federation now: it may have been provisioned again since the job began."""
        try:
            silos = read_members(self._kit).silos
        except SiloscopeError as error:
            self.log_error(fl_ctx, f"who is in the federation is as it was before: {error}")
            return
        if silos != self._silos:
            self._silos = silos
            broker.ask_these(silos)
            self.log_info(fl_ctx, f"the search broker is up for {', '.join(silos)} now")


def _announce(core: Any, silo: str, broker: Broker) -> None:
    try:
        broker.met(silo, cells.request(core, words.TOPIC_ANNOUNCE, silo, b"", _ANNOUNCE_TIMEOUT_S))
    except (cells.CellTimeout, cells.CellUnreachable) as error:
        _log.debug("%s does not hear the broker: %s", silo, error)


def _sleep(seconds: float, abort: Signal) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not abort.triggered:
        time.sleep(0.1)
