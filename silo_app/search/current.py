"""What a silo's index process has open: the current generation and the catalogue, exchanged when they change on disk."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.errors import IndexDamaged, NotReady, SiloscopeError
from silo_app.index.gallery import GalleryIndex
from silo_app.index.generations import open_current, pointer
from silo_app.index.likeness import sense_of
from silo_app.index.storage import Storage
from silo_app.policy.filters import Filters
from silo_app.search.answer import CardLookup, SearchableCases

__all__ = ["CurrentGallery", "OpenCatalogue"]

_log = logging.getLogger(__name__)
_KNOWN = 50_000
"""Cases whose cards are kept in memory until the catalogue changes."""
_NARROWED = 32
"""Filters whose rows are kept in memory until then."""
_NEVER = -1


class CurrentGallery:
    """The generation in use. A new one is opened beside the old one, which goes on answering meanwhile."""

    def __init__(self, root: Path, storage: Storage | None = None) -> None:
        self._root = root
        self._storage = storage or Storage()
        self._lock = threading.Lock()
        self._opened: SearchableCases | None = None
        self._damage: IndexDamaged | None = None
        self._pointer = (0, 0)
        self._opening = False

    def get(self) -> SearchableCases | None:
        """Return the open generation, None if nothing was indexed yet. Raises `IndexDamaged` if none is sound."""
        if pointer(self._root) == self._pointer and self._opened is not None:
            return self._opened
        with self._lock:
            if pointer(self._root) == self._pointer and self._opened is not None:
                return self._opened
            if self._opened is None:
                return self._open_first()
            if not self._opening:
                self._opening = True
                threading.Thread(target=self._exchange, name="open-generation", daemon=True).start()
            return self._opened

    def _open_first(self) -> SearchableCases | None:
        """Open what there is; damage is found once, not with every query, until something new is published."""
        if self._damage is not None and pointer(self._root) == self._pointer:
            raise self._damage
        try:
            return self._open()
        except NotReady:
            return None
        except IndexDamaged as error:
            self._damage = error
            raise

    def _open(self) -> SearchableCases:
        self._pointer = pointer(self._root)  # before reading: what is published meanwhile is opened next
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
        _log.info("generation %s of the index is open: %d cases", info.generation, info.cases)
        return self._opened

    def _exchange(self) -> None:
        try:
            self._open()
        except SiloscopeError as error:
            _log.error("the new generation cannot be opened, the old one stays: %s", error)
        finally:
            self._opening = False


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
        self._path = home.catalogue
        self._lock = threading.Lock()
        self._opened: Catalogue | None = None
        self._inode = 0
        self._version = _NEVER
        self._known = _Known(self._read)
        self._narrowed_version = _NEVER
        self._narrowed: dict[tuple[Filters, str], NDArray[np.int64]] = {}

    def view_of(self, case: CaseId) -> View | None:
        """Return a view of the case, None if it was recalled. Raises `NotReady`, `CatalogueDamaged`."""
        return self.as_it_is()(case)

    def as_it_is(self, ahead: Sequence[CaseId] = ()) -> CardLookup:
        """Return a look-up in the catalogue as it is now, for the cases of some queries; those in `ahead` are read at once.

        Raises as `view_of` does.
        """
        with self._lock:  # one connection: SQLite would order the threads itself, less politely
            inode = self._path.stat().st_ino if self._path.exists() else 0
            if self._opened is None or inode != self._inode:
                self._close()
                self._opened, self._inode = Catalogue.open(self._path), inode
                self._version = self._narrowed_version = _NEVER  # another file counts its own
            if (version := self._opened.version()) != self._version or len(self._known) > _KNOWN:
                self._version, self._known = version, _Known(self._read)
            known = self._known
            if unread := [case for case in ahead if case not in known]:
                cards = self._opened.cards(unread)
                known.update({case: cards.get(case) for case in unread})
        return known.__getitem__

    def rows_where(self, filters: Filters, index: GalleryIndex, generation: str) -> NDArray[np.int64]:
        """Return the rows of a generation's index whose cases the filters hold for, ascending int64 (n,).

        Remembered until the catalogue changes. Raises as `view_of` does.
        """
        self.as_it_is()
        with self._lock:
            key, version = (filters, generation), self._version
            if version != self._narrowed_version or len(self._narrowed) >= _NARROWED:
                self._narrowed, self._narrowed_version = {}, version
            if key not in self._narrowed and self._opened is not None:
                self._narrowed[key] = index.rows_of(self._opened.cases_where(filters))
            return self._narrowed[key]

    def rows_held(self, gallery: SearchableCases) -> NDArray[np.int64]:
        """Return the rows of a generation whose cases the catalogue holds now, ascending int64 (n,); raises as `view_of`."""
        return self.rows_where(Filters(), gallery.index, gallery.generation)

    def _read(self, case: CaseId) -> View | None:
        with self._lock:
            return self._opened.card(case) if self._opened is not None else None

    def close(self) -> None:
        """Close it; a later look-up opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
