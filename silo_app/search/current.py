"""What a silo's index process has open: the current generation and the catalogue, exchanged when they change on disk."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from itertools import filterfalse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, View
from silo_app.catalogue.reopened import ReopenedCatalogue, Version
from silo_app.config import SiloHome
from silo_app.errors import IndexDamaged, NotReady, SiloscopeError
from silo_app.index.gallery import GalleryIndex
from silo_app.index.generations import open_current, pointer
from silo_app.index.likeness import sense_of
from silo_app.index.storage import Storage
from silo_app.policy.filters import Filters
from silo_app.search.answer import CardLookup, RowsWhere, SearchableCases
from silo_app.search.narrowed import HeldRows, NarrowedRows

__all__ = ["CurrentGallery", "OpenCatalogue"]

_log = logging.getLogger(__name__)
_KNOWN = 50_000
"""Cases whose cards are kept in memory until the catalogue changes."""
_NEVER: Version = (0, 0)
_NOTHING = (0, 0)
"""The pointer where no generation is."""
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LONGEST_SILENCE_S = 5.0
"""The longest pause while nothing is open, and every query is refused."""


class CurrentGallery:
    """The generation in use. A new one is opened beside the old one, which goes on answering meanwhile.

    One that cannot be opened is tried again after a pause, which doubles each time, as long as somebody asks.
    """

    def __init__(self, root: Path, storage: Storage | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._storage = storage or Storage()
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: SearchableCases | None = None
        self._damage: IndexDamaged | None = None
        self._pointer = _NOTHING  # of what is open, or damaged as a whole
        self._opening = False
        self._failed = _NOTHING  # what could not be opened, so many times, and when it is tried again
        self._failures = 0
        self._again_at = 0.0

    def get(self) -> SearchableCases | None:
        """Return the open generation, None if nothing was indexed yet. Raises `IndexDamaged` if none is sound."""
        if pointer(self._root) == self._pointer and self._opened is not None:
            return self._opened
        with self._lock:
            named = pointer(self._root)
            if named == self._pointer and self._opened is not None:
                return self._opened
            if self._opened is None:
                return self._open_first()
            return self._exchanged(named)

    def _open_first(self) -> SearchableCases | None:
        """Open what there is; damage is found once, not with every query, until something new is published.

        Who asks waits for the first try alone: a server that hangs would otherwise make everybody late, one after another.
        """
        named = pointer(self._root)
        if self._damage is not None and named == self._pointer:
            raise self._damage
        if self._failures and named == self._failed:
            return self._exchanged(named)
        try:
            return self._open(named)
        except NotReady as error:
            if named != _NOTHING:
                self._postpone(named, error)
            return None
        except IndexDamaged as error:
            self._damage, self._pointer = error, named
            raise

    def _open(self, named: tuple[int, int]) -> SearchableCases:
        """Open what is in use; `named` was the pointer before: what is published meanwhile is opened next."""
        generation = open_current(self._root, self._storage)
        for name in generation.skipped:
            _log.error("generation %s of the index is damaged and is not used; run `silo index build`", name)
        info = generation.info
        self._opened = SearchableCases(
            info.generation,
            EncoderVersion(info.encoder_version),
            generation.gallery,
            sense_of(generation.gallery, info.likeness),
        )
        self._pointer = named
        _log.info("generation %s of the index is open: %d cases", info.generation, info.cases)
        return self._opened

    def _exchanged(self, named: tuple[int, int]) -> SearchableCases | None:
        """Return what is open, and have what is in use now opened beside it if it is time."""
        if not self._opening and (named != self._failed or self._clock() >= self._again_at):
            self._opening = True
            threading.Thread(target=self._exchange, name="open-generation", daemon=True).start()
        return self._opened

    def _exchange(self) -> None:
        named = pointer(self._root)
        try:
            self._open(named)
        except Exception as error:  # noqa: BLE001  (whatever it is: it must not stay the last try)
            if isinstance(error, IndexDamaged) and self._opened is None:
                self._damage, self._pointer = error, named
            self._postpone(named, error)
        finally:
            self._opening = False

    def _postpone(self, named: tuple[int, int], error: Exception) -> None:
        self._failures = self._failures + 1 if named == self._failed else 1
        longest_s = _LONGEST_SILENCE_S if self._opened is None else _LONGEST_PAUSE_S
        pause_s = min(_PAUSE_S * 2 ** (self._failures - 1), longest_s)
        self._failed, self._again_at = named, self._clock() + pause_s
        said = str(error) if isinstance(error, SiloscopeError) else repr(error)
        _log.error("the generation in use cannot be opened; it is tried again after %g s: %s", pause_s, said)


class _Known(dict[CaseId, View | None]):
    """Cards of the catalogue as it was at one time; one that is not here yet is read.

    A query looks up many: they are found here at the cost of a dictionary.
    """

    def __init__(self, read: Callable[[CaseId], View | None]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, case: CaseId) -> View | None:
        view = self[case] = self._read(case)
        return view


class OpenCatalogue:
    """The catalogue for looking cards up; opened at first use, and again when its file was replaced."""

    def __init__(self, home: SiloHome) -> None:
        self._catalogue = ReopenedCatalogue(home.catalogue)
        self._lock = threading.Lock()
        self._version = _NEVER
        self._known = _Known(self._read)
        self._narrowed = NarrowedRows(home.catalogue)
        self._held = HeldRows(home.catalogue)

    def view_of(self, case: CaseId) -> View | None:
        """Return a view of the case, None if it was recalled. Raises `NotReady`, `CatalogueDamaged`."""
        return self.as_it_is()(case)

    def as_it_is(self, ahead: Iterable[CaseId] = ()) -> CardLookup:
        """Return a look-up in the catalogue as it is now, for the cases of some queries; those in `ahead` are read at once.

        Raises as `view_of` does.
        """
        with self._lock:  # one connection: SQLite would order the threads itself, less politely
            catalogue, version = self._catalogue.now()
            if version != self._version or len(self._known) > _KNOWN:
                self._version, self._known = version, _Known(self._read)
            known = self._known
            if unread := set(filterfalse(known.__contains__, ahead)):  # `difference` would go through all of it
                cards = catalogue.cards(list(unread))
                known.update({case: cards.get(case) for case in unread})
        return known.__getitem__

    def rows_where(self, filters: Filters, index: GalleryIndex, serial: int) -> NDArray[np.int64]:
        """Return the rows of a generation's index whose cases the filters hold for, ascending int64 (n,).

        As the catalogue was some seconds ago, when narrowing was prepared. Raises as `view_of` does.
        """
        return self._narrowed.rows(filters, index, serial)

    def rows_of(self, gallery: SearchableCases | None) -> RowsWhere:
        """Return `rows_where` for one open generation."""
        serial = gallery.serial if gallery else 0
        return lambda filters, index: self.rows_where(filters, index, serial)

    def prepare_narrowing(self, patience_s: float) -> bool:
        """Return whether `rows_where` can answer, waiting so long at most: before one takes a processor's place."""
        return self._narrowed.prepare(patience_s)

    def rows_held(self, gallery: SearchableCases) -> NDArray[np.int64]:
        """Return the rows of a generation whose cases the catalogue holds now, ascending int64 (n,); raises as `view_of`."""
        return self._held.rows(gallery.index, gallery.serial)

    def _read(self, case: CaseId) -> View | None:
        with self._lock:
            catalogue = self._catalogue.opened
            return catalogue.card(case) if catalogue is not None else None

    def close(self) -> None:
        """Close it; a later look-up opens it again."""
        with self._lock:
            self._catalogue.close()
        self._narrowed.close()
        self._held.close()
