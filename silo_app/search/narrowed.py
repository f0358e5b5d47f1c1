"""Which rows of a generation a narrowed search is about: what the cards say by columns, read in the background.

Reading them takes seconds where there are millions of cases, and an ingest changes the catalogue every other second. So who
asks gets what was read last, some seconds old at most, while a thread with a connection of its own reads what is new.
Nothing depends on these seconds but whether a case is looked at: its card, as it is now, is asked again before it is shown
or counted. Which cases the catalogue holds at all is another matter, and is never old (`HeldRows`).
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.catalogue.filtering import CardColumns
from silo_app.catalogue.reopened import ReopenedCatalogue, Version
from silo_app.errors import NotReady, SiloscopeError
from silo_app.hex_rows import row_values
from silo_app.index.gallery import GalleryIndex
from silo_app.policy.filters import Filters

__all__ = ["HeldRows", "NarrowedRows"]

_log = logging.getLogger(__name__)
_GENERATIONS = 2
"""A new one is opened while the old one still answers."""
_LOOK_S = 0.5
"""From one look at the catalogue to the next, at least."""
_SHARE = 3
"""Reading takes at most one part of so many of the time, however large the catalogue is."""
_OLD_S = 10.0
"""Older columns are not used; where reading takes seconds, they may be as old as two readings and their pauses take."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of the catalogue, and where each generation's rows are in it."""

    columns: CardColumns
    version: Version
    places: dict[int, NDArray[np.int64]] = field(default_factory=dict)


class NarrowedRows:
    """Rows by filter, as the catalogue was some seconds ago; from many threads."""

    def __init__(self, catalogue: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalogue = ReopenedCatalogue(catalogue)
        self._clock = clock
        self._changed = threading.Condition()
        self._reading = False
        self._read: _Read | None = None
        self._as_of = -float("inf")  # when what was read was the catalogue's newest
        self._again_at = -float("inf")
        self._took_s = 0.0
        self._looks = 0
        self._error: SiloscopeError | None = None

    def prepare(self, patience_s: float) -> bool:
        """Have what is new read, and return whether `rows` can answer: if what there is is too old, when that was read.

        What fails is no reason to wait: `rows` says it.
        """
        end = time.monotonic() + patience_s
        with self._changed:
            self._look()
            looks = self._looks
            while self._is_old() and self._looks == looks:
                self._look(at_once=True)
                if not self._changed.wait(end - time.monotonic()):
                    return False
            return True

    def rows(self, filters: Filters, index: GalleryIndex, serial: int) -> NDArray[np.int64]:
        """Return the rows of a generation's index whose cases the filters hold for, ascending int64 (n,); reads nothing.

        Raises `NotReady`, `CatalogueDamaged`, if nothing could be read since it was `prepare`d.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._read is None:
                raise NotReady("the catalogue has not been read yet", where="narrowed search", remedy="Ask again.")
            read = self._read
            places = _placed(read.places, serial, index, read.columns.cases)
        holds = np.append(read.columns.where(filters), False)  # the last is for rows whose cases have left the catalogue
        return np.flatnonzero(holds[places]).astype(np.int64)

    def close(self) -> None:
        """Close the catalogue; a later question opens it again."""
        with self._changed:
            self._changed.wait_for(lambda: not self._reading)
            self._catalogue.close()

    def _is_old(self) -> bool:
        return self._clock() - self._as_of > max(_OLD_S, 2 * _SHARE * self._took_s)

    def _look(self, *, at_once: bool = False) -> None:
        if not self._reading and (at_once or self._clock() >= self._again_at):
            with contextlib.suppress(RuntimeError):  # no thread is to be had now: the next look tries again
                threading.Thread(target=self._look_now, name="card-columns", daemon=True).start()
                self._reading = True

    def _look_now(self) -> None:
        """Read the columns if the catalogue has changed; without the lock, which who asks takes."""
        begun, read, error = self._clock(), self._read, None
        try:
            catalogue, version = self._catalogue.now()  # before reading: what is written meanwhile is read with the next
            if read is None or version != read.version:
                read = _Read(catalogue.card_columns(), version)
        except SiloscopeError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001  (whatever it is, it must not stay the last look)
            _log.exception("the catalogue was not read by columns")
            error = NotReady(f"the catalogue was not read: {type(failed).__name__}", remedy="Look at the log.")
        with self._changed:
            took_s = self._clock() - begun
            if error is None:
                if read is not self._read:
                    self._took_s = took_s
                self._read, self._as_of = read, begun
            self._error, self._again_at = error, begun + max(_LOOK_S, _SHARE * took_s)
            self._reading, self._looks = False, self._looks + 1
            self._changed.notify_all()


class HeldRows:
    """Rows whose cases the catalogue holds, as it is when they are asked for; from many threads."""

    def __init__(self, catalogue: Path) -> None:
        self._catalogue = ReopenedCatalogue(catalogue)
        self._lock = threading.Lock()
        self._version: Version = (0, 0)
        self._cases: NDArray[np.uint8] | None = None
        self._places: dict[int, NDArray[np.int64]] = {}

    def rows(self, index: GalleryIndex, serial: int) -> NDArray[np.int64]:
        """Return the rows of a generation's index, ascending int64 (n,). Raises `NotReady`, `CatalogueDamaged`."""
        with self._lock:
            catalogue, version = self._catalogue.now()  # before reading: what is written meanwhile is read with the next
            if self._cases is None or version != self._version:
                cases = catalogue.case_names()
                if self._cases is None or not np.array_equal(cases, self._cases):
                    self._cases, self._places = cases, {}
                self._version = version
            places, count = _placed(self._places, serial, index, self._cases), len(self._cases)
        return np.flatnonzero(places < count).astype(np.int64)

    def close(self) -> None:
        """Close the catalogue; a later question opens it again."""
        with self._lock:
            self._catalogue.close()


def _placed(
    known: dict[int, NDArray[np.int64]], serial: int, index: GalleryIndex, cases: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return where the rows of the generation opened as `serial` are among the cases, and remember it."""
    if serial not in known:
        for oldest in list(known)[: len(known) + 1 - _GENERATIONS]:
            del known[oldest]
        known[serial] = _places_of(index.row_cases, cases)
    return known[serial]


def _places_of(rows: NDArray[np.uint8], cases: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where each row's case, uint8 (n, 16), is among cases (m, 16), ascending; m where it is not; int64 (n,)."""
    if not len(cases):
        return np.zeros(len(rows), np.int64)
    named, known = row_values(rows), row_values(cases)
    place = np.minimum(np.searchsorted(known, named), len(cases) - 1)
    return np.where(known[place] == named, place, len(cases))
