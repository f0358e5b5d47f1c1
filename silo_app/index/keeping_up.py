"""Keep the index in use up to date with the catalogue: `silo index build`, when there is something new, by itself.

The index process looks every few seconds, which costs one number of SQLite's while nothing changes, and builds in a process
of its own at the lowest priority: the training library is in memory only as long as a build runs, and whatever ends that
process costs the build alone. Only what a person has begun is continued: with the encoder of the index in use, as long as
that is the silo's current one. Views that have left the catalogue are no reason to build, since no answer shows them; the
next build drops them. Views that a catalogue made anew has under other cases are one: nobody finds them. Views that a build
could not have, because their radiographs are lost, are none until the catalogue changes: an ingest makes them anew. Where
the generation in use is damaged, or lost by Milvus, and an older one stands in for it, the next is built from that.
"""

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from silo_app.cases import EncoderVersion
from silo_app.catalogue.reopened import ReopenedCatalogue
from silo_app.command import command_line, data_of
from silo_app.config import SiloHome
from silo_app.encoder.current import current_version
from silo_app.errors import NotReady, ProcessFailed, SiloscopeError
from silo_app.index.generations import in_use, is_building, named_current, pointer
from silo_app.index.known import indexed, missing_from
from silo_app.index.manifest import read_manifest
from silo_app.index.storage import Storage

__all__ = ["KeepingUp", "Pace"]

_log = logging.getLogger(__name__)
_LOWEST = 19
_SOON_S = 0.2
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """When it looks, and when it builds."""

    look_s: float = 2.0
    """From one look to the next."""
    least_s: float = 30.0
    """From the beginning of one build to that of the next."""
    share: int = 3
    """A build takes at most one part of so many of the time, however large the gallery is."""
    longest_s: float = 1800.0
    """What the pauses after builds that failed grow to."""

    def pause_s(self, took_s: float, failures: int) -> float:
        """Return how long after the beginning of a build the next may begin: the last `failures` builds have failed."""
        usual_s = max(self.least_s, self.share * took_s)
        return max(usual_s, min(usual_s * 2.0 ** max(0, min(failures, 64) - 1), self.longest_s))


class KeepingUp:
    """One silo's index; a thread, and at times a process. `renewed` is called whenever another generation is in use."""

    def __init__(
        self,
        home: SiloHome,
        renewed: Callable[[], object],
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        command: Sequence[str] = (),
    ) -> None:
        self._home = home
        self._renewed = renewed
        self._pace = pace or Pace()
        self._clock = clock
        self._command = list(command) or command_line(["index", "build", "--silo", str(home.kit), "--only-new"])
        self._storage = Storage.of(home)
        self._catalogue = ReopenedCatalogue(home.catalogue)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._named = pointer(home.index)
        self._sound: tuple[tuple[int, int], str | None] | None = None  # the pointer, and what is open since it is that
        self._settled: object = None  # the state in which there was nothing to do
        self._looked_at: tuple[object, ...] = ()  # the state before a build
        self._failures = 0
        self._again_at = self._asked_again_at = -float("inf")

    def start(self) -> None:
        """Look from now on, unless the silo does without (`index.keep_up`)."""
        if self._home.config.index.keep_up and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keeping-up", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread, and a build that runs; a second time does nothing."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(2 * _GRACE_S)
        self._catalogue.close()

    def look(self) -> None:
        """Take a generation that is new, and build one if it is time and views are missing, or the index is damaged.

        Raises `SiloscopeError`.
        """
        named = pointer(self._home.index)
        if named != self._named:
            self._named, self._failures = named, 0
            self._renewed()
        if self._clock() < self._again_at:
            return
        state = (named, self._encoder(), self._catalogue.now()[1]) if named != (0, 0) else named
        if is_building(self._home.index):  # before anything is read: the next look asks again
            return
        if self._has_vanished():
            self._settled = self._sound = None
        if state == self._settled:
            return
        self._looked_at = state
        missing = self._missing()
        if missing or self._stands_in():
            self._build(missing)
        else:
            self._settled = state

    def _run(self) -> None:
        while not self._ended.wait(self._pace.look_s):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001  (whatever it is, the next look may succeed)
                self._failed(error, 0.0)

    def _missing(self) -> int:
        """Return how many views of the catalogue the generation in use lacks, if it is one to add to."""
        named = pointer(self._home.index)
        if self._sound is None or self._sound[0] != named:
            self._sound = named, in_use(self._home.index, self._storage)
        name, encoder = self._sound[1], self._encoder()
        held = indexed(self._home.index, name, EncoderVersion(encoder)) if name and encoder else None
        return 0 if held is None else missing_from(held, self._catalogue.now()[0].contents())

    def _has_vanished(self) -> bool:
        """Return whether Milvus has lost what is in use; it is asked as seldom as is built, and no answer says nothing."""
        sound, name = self._sound or (None, None)
        if name is None or sound != pointer(self._home.index) or self._clock() < self._asked_again_at:
            return False
        self._asked_again_at = self._clock() + self._pace.least_s
        return self._storage.has_lost(read_manifest(self._home.index / name))

    def _stands_in(self) -> bool:
        """Return whether what is sound, of this encoder, is not what `current` names: that is damaged, or Milvus lost it."""
        name = self._sound[1] if self._sound else None
        if name is None or name == named_current(self._home.index):
            return False
        return read_manifest(self._home.index / name).encoder_version == self._encoder()

    def _encoder(self) -> str:
        try:
            return current_version(self._home.models)
        except NotReady:
            return ""

    def _build(self, missing: int) -> None:
        begun = self._clock()
        child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with contextlib.suppress(OSError):  # it may have ended
            os.setpriority(os.PRIO_PROCESS, child.pid, _LOWEST)
        output, noise = self._outcome(child)
        if self._ended.is_set():
            return
        took_s = self._clock() - begun
        try:
            data = data_of(output, status=child.returncode, command="silo index build", noise=noise)
        except ProcessFailed as error:
            self._failed(error, took_s)
            return
        self._failures, self._again_at = 0, begun + self._pace.pause_s(took_s, 0)
        if lacking := int(data.get("lacking", 0)):
            self._settled = (pointer(self._home.index), *self._looked_at[1:])
            _log.warning("%d views are not searchable: their radiographs are lost, `silo ingest` makes them anew", lacking)
        _log.info(
            "%d new views are searchable: generation %s of %d cases, in %.1f s",
            max(0, missing - lacking),
            data["generation"],
            data["cases"],
            took_s,
        )

    def _outcome(self, child: subprocess.Popen[str]) -> tuple[str, str]:
        """Return what a build wrote; it is ended when we are."""
        try:
            while not self._ended.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.communicate(timeout=_SOON_S)
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=_GRACE_S)
        finally:
            if child.poll() is None:
                child.kill()
        return child.communicate()

    def _failed(self, error: Exception, took_s: float) -> None:
        """Say so, and try again later: each time later."""
        self._failures += 1
        pause_s = self._pace.pause_s(took_s, self._failures)
        self._again_at = self._clock() - took_s + pause_s
        said = str(error) if isinstance(error, SiloscopeError) else repr(error)
        _log.error("the index does not keep up with the catalogue; next try in %.0f s: %s", pause_s - took_s, said)
