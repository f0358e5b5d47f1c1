"""A silo's asking process: it embeds and asks for the hospital's own programs, who say on a private socket what they want.

Nothing that it is sent ends it: files are read in processes of their own, and whatever fails, fails for one request. Its
log has codes and versions; nothing of what is asked or found.
"""

import logging
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from silo_app.config import SiloHome
from silo_app.errors import Busy, NotReady, SiloscopeError
from silo_app.imaging.isolated import IsolatedReader
from silo_app.search.ask import Asker
from silo_app.search.desk.encoder_in_use import EncoderInUse
from silo_app.search.desk.holdings import Holdings
from silo_app.search.desk.messages import MAX_SEARCH_BYTES, DeskAsked, DeskError, DeskFound, DeskSearch, DeskState
from silo_app.search.examples import Means
from silo_app.search.find import find
from silo_app.search.local import FrameServer, Limits, is_own_account
from silo_app.search.messages import SearchResult
from silo_app.search.own_records import AskingLog
from silo_app.search.wire import decode, encode

__all__ = ["DeskProcess"]

_log = logging.getLogger(__name__)

AT_ONCE = 8
"""Searches: most of their time they wait for hospitals."""
_WATCH_S = 1.0
_MEND_MACHINE = (
    "Look whether the disk has room, and whether the account of the silo may read and write there (`silo doctor`)."
)
_START_S = 3.0
_LONGEST_END_S = 75.0
"""How long an end waits for searches that have begun: less than the 90 s after which systemd.service(5) kills."""


class DeskProcess:
    """Everything that asking needs, and a socket; `answer_frame` alone is what the socket calls."""

    def __init__(self, home: SiloHome, *, at_once: int = AT_ONCE) -> None:
        self._home = home
        self._asker = Asker.of(home, AskingLog)
        self._encoder = EncoderInUse(home)
        self._holdings = Holdings()
        self._at_once = at_once
        self._lock = threading.Lock()
        self._at_work: dict[object, float] = {}
        """Searches, and by when each should be done."""
        self._idle = threading.Condition(self._lock)
        self._ended = threading.Event()
        self._reader: IsolatedReader | None = None
        self._started = threading.Event()
        self._seen = DeskState(encoder="loading", at_work=0, at_once=at_once)
        limits = Limits(frame=MAX_SEARCH_BYTES, room=2 * MAX_SEARCH_BYTES, busy=encode(DeskError.of(_busy(), taken=False)))
        self._server = FrameServer(home.desk_socket, self.answer_frame, limits=limits, admits=is_own_account)

    def start(self) -> None:
        """Listen, and load the encoder meanwhile. Raises `NotReady` if an asking process of this silo runs already."""
        self._server.start()
        self._reader = IsolatedReader(self._home.root / "run" / "desk")  # whoever listens owns the folder
        self._reader.warm()
        self._started.set()
        threading.Thread(target=self._watch, name="encoder", daemon=True).start()

    def close(self) -> None:
        """Take no more searches, wait for those that have begun, as long as they may take, then end everything.

        What is cut off is in the audit log (`asking-failed`).
        """
        self._ended.set()
        latest = time.monotonic() + _LONGEST_END_S
        with self._idle:
            if self._at_work:
                _log.info("searches that have begun are waited for: %d", len(self._at_work))
            while (left_s := min(max(self._at_work.values(), default=0.0), latest) - time.monotonic()) > 0:
                self._idle.wait(left_s)
        self._server.close()
        if self._reader is not None:
            self._reader.close()
        self._holdings.close()
        self._asker.close()
        self._asker.audit.close()

    def answer_frame(self, frame: bytes) -> bytes:
        """Return the reply to a question, or an error, as bytes. Raises nothing."""
        taken = False
        try:
            question = decode(frame, DeskSearch, DeskAsked)
            if isinstance(question, DeskAsked):
                return encode(self._state())
            with self._taken_on(question) as reader:
                taken = True
                return encode(self._found(question, reader))
        except SiloscopeError as error:
            _log.warning("a request was not answered: %s", error.code)
            return encode(DeskError.of(error, taken=taken))
        except OSError as error:  # of the machine, mostly: a full disk, on which the audit log cannot be written
            _log.error("a request was not answered: %s", error.strerror)
            return encode(DeskError.of(NotReady(f"the system refuses it: {error.strerror}", remedy=_MEND_MACHINE)))
        except Exception as error:  # noqa: BLE001  (whatever fails for one request, the next one is answered)
            # its text may hold anything that was asked
            _log.error("a request was not answered: %s at %s", type(error).__name__, _place(error.__traceback__))
            return encode(
                DeskError(code=SiloscopeError.code, problem=SiloscopeError.public, remedy="Look at the desk's log.")
            )

    def _found(self, question: DeskSearch, reader: IsolatedReader) -> DeskFound:
        means = Means(self._encoder.get, reader.read, self._holdings.catalogue, self._holdings.known)
        found = find(self._home, question.wanted(), asker=self._asker, means=means)
        self._see(found.result)
        return DeskFound.of(found)

    def _state(self) -> DeskState:
        said = {
            "encoder": self._encoder.state,
            "encoder_version": self._encoder.version or "",
            "at_work": len(self._at_work),
        }
        return self._seen.model_copy(update=said)

    def _see(self, result: SearchResult) -> None:
        silos = {report.silo: report.state for report in result.silos}
        self._seen = self._seen.model_copy(update={"silos": silos, "seen_at_ms": int(time.time() * 1000)})

    @contextmanager
    def _taken_on(self, question: DeskSearch) -> Iterator[IsolatedReader]:
        """Be at work on a search, and give what reads its files. Raises `Busy`."""
        search = object()
        with self._lock:
            if self._ended.is_set():
                raise _busy("the desk is ending")
            if len(self._at_work) >= self._at_once:
                raise _busy()
            self._at_work[search] = time.monotonic() + question.patience_s
        try:
            self._started.wait(_START_S)
            if self._reader is None:
                raise _busy("the desk is starting")
            yield self._reader
        finally:
            with self._idle:
                del self._at_work[search]
                self._idle.notify_all()

    def _watch(self) -> None:
        while True:
            self._encoder.refresh()
            if self._ended.wait(_WATCH_S):
                return


def _busy(problem: str = "the desk has as many searches as it takes on at once") -> Busy:
    return Busy(problem, where="desk", remedy="Ask again in a moment.")


def _place(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
