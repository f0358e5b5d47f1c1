"""Which silos' job processes are there: asked of their gateways, as NVFlare itself misses a killed site for ten minutes.

A hospital that holds many images must get its time, and nobody should wait for one whose process is gone. The connection
of a killed process is closed at once, so a question to it fails within milliseconds. A process that is stopped, or whose
machine hangs, keeps its connection: it is asked itself, and given up when it has said nothing for long.
"""

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import Any, Self

from nvflare.apis.fl_context import FLContext

from silo_app.flare import cells, words

__all__ = ["LONG", "MISSES", "SILENT_S", "Presence"]

_EVERY_S = 3.0
_TIMEOUT_S = 3.0
MISSES = 4
"""So many unanswered questions in a row, about 12 s: a glitch or a restart of the site is shorter."""
LONG = 40
"""About 2 min: where one answer is hours of work, a cut of the network is worth waiting for."""
SILENT_S = 120.0
"""So long may a connected process say nothing: its machine may be very busy."""


class Presence:
    """Asks every site for its process of `job` every few seconds, on a thread of its own, until it is closed.

    A site may say that the process has ended: after four times it is gone. One that is not reached may be there still: after
    how many times it is gone is for the one to say who waits. Of a connected one that answers nothing, nobody waits for
    longer than `silent_s`.
    """

    @classmethod
    def of(cls, fl_ctx: FLContext, silos: Iterable[str]) -> Self:
        """Watch the silos of a server's job."""
        return cls(cells.core_of(fl_ctx.get_engine()), silos, str(fl_ctx.get_job_id()))

    def __init__(
        self, core: Any, silos: Iterable[str], job: str, *, every_s: float = _EVERY_S, silent_s: float = SILENT_S
    ) -> None:
        self._core = core
        self._job = job
        self._missed = dict.fromkeys(silos, (0, False))
        """How often in a row a silo's process was not there, and whether its site said so the last time."""
        self._silent_since: dict[str, float] = {}
        self._every_s, self._silent_s = every_s, silent_s
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="presence", daemon=True).start()

    def is_gone(self, silo: str, *, unreached: int = MISSES) -> bool:
        """Return whether it has not been there for a while: `unreached` times in a row, if its site does not say so."""
        missed, ended = self._missed.get(silo, (0, False))
        return missed >= (MISSES if ended else unreached) or self.is_silent(silo)

    def is_silent(self, silo: str) -> bool:
        """Return whether the silo is connected, and its site or the job's process has answered nothing for too long."""
        since = self._silent_since.get(silo)
        return since is not None and time.monotonic() - since >= self._silent_s

    def is_absent(self, silo: str) -> bool:
        """Return whether the silo's process was not there when last asked; a moment later it may be."""
        return self._missed.get(silo, (0, False))[0] > 0

    def __enter__(self) -> Self:
        """Ask until the block is left."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        self.close()

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            start = time.monotonic()
            for silo, (missed, _) in list(self._missed.items()):
                there, ended = self._asked(silo)
                self._missed[silo] = (0 if there else missed + 1, ended)
            self._closed.wait(max(0.1, self._every_s - (time.monotonic() - start)))

    def _asked(self, silo: str) -> tuple[bool, bool]:
        """Return whether the silo's process is there, and whether its site says that it has ended."""
        asked = time.monotonic()
        try:
            ended = cells.request(self._core, words.TOPIC_ALIVE, silo, self._job.encode(), _TIMEOUT_S) == words.ENDED
            if not ended:
                self._hear(silo)
        except cells.CellUnreachable:
            self._silent_since.pop(silo, None)
            return False, False
        except cells.CellTimeout:
            self._silent_since.setdefault(silo, asked)
            return True, False  # connected but busy: not gone
        self._silent_since.pop(silo, None)
        return not ended, ended

    def _hear(self, silo: str) -> None:
        """Hear the job's process itself, which its site only sees. Raises `CellTimeout` if it says nothing."""
        with contextlib.suppress(cells.CellUnreachable):  # it is just beginning, or ending
            cells.echo(self._core, f"{silo}.{self._job}", _TIMEOUT_S)
