"""Which rows of a generation a narrowed search is about: what the cards say by columns, read once for each change.

Reading them takes seconds where there are millions of cases. It happens on a connection and under a lock of its own:
whoever asks without a filter waits for none of it.
"""

import contextlib
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.catalogue.filtering import CardColumns
from silo_app.catalogue.reopened import ReopenedCatalogue, Version
from silo_app.errors import SiloscopeError
from silo_app.index.gallery import GalleryIndex
from silo_app.policy.filters import Filters

__all__ = ["NarrowedRows"]

_GENERATIONS = 2
"""A new one is opened while the old one still answers."""


class NarrowedRows:
    """Rows by filter, as the catalogue is when they are asked for; from many threads."""

    def __init__(self, catalogue: Path) -> None:
        self._catalogue = ReopenedCatalogue(catalogue)
        self._lock = threading.Lock()
        self._version: Version = (0, 0)
        self._columns: CardColumns | None = None
        self._cards: dict[str, NDArray[np.int64]] = {}

    def prepare(self) -> None:
        """Read what the catalogue has new, so that the next `rows` need not; what fails here fails there again."""
        with self._lock, contextlib.suppress(SiloscopeError):
            self._read()

    def rows(self, filters: Filters, index: GalleryIndex, generation: str) -> NDArray[np.int64]:
        """Return the rows of a generation's index whose cases the filters hold for, ascending int64 (n,).

        Raises `NotReady`, `CatalogueDamaged`.
        """
        with self._lock:
            columns = self._read()
            if generation not in self._cards:
                kept = list(self._cards.items())[1 - _GENERATIONS :]
                self._cards = dict(kept) | {generation: _cards_of(index.row_cases, columns.cases)}
            cards = self._cards[generation]
        holds = np.append(columns.where(filters), False)  # the last is for rows whose cases have left the catalogue
        return np.flatnonzero(holds[cards]).astype(np.int64)

    def close(self) -> None:
        """Close the catalogue; a later question opens it again."""
        with self._lock:
            self._catalogue.close()

    def _read(self) -> CardColumns:
        catalogue, version = self._catalogue.now()  # before reading: what is written meanwhile is read with the next
        if self._columns is None or version != self._version:
            self._columns, self._version, self._cards = catalogue.card_columns(), version, {}
        return self._columns


def _cards_of(rows: NDArray[np.uint8], cases: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where each row's case, uint8 (n, 16), is among cases (m, 16), ascending; m where it is not; int64 (n,)."""
    if not len(cases):
        return np.zeros(len(rows), np.int64)
    named, known = _named(rows), _named(cases)
    place = np.minimum(np.searchsorted(known, named), len(cases) - 1)
    return np.where(known[place] == named, place, len(cases))


def _named(cases: NDArray[np.uint8]) -> NDArray[np.void]:
    named: NDArray[np.void] = np.ascontiguousarray(cases).view("V16").ravel()
    return named
