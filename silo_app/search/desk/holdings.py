"""The silo's own catalogue and index, kept open for what is looked up in them; opened again when they change on disk.

Opening either checks it whole, which takes longer than a look-up by orders of magnitude.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import EncoderVersion
from silo_app.catalogue import Catalogue
from silo_app.catalogue.reopened import ReopenedCatalogue
from silo_app.config import SiloHome
from silo_app.errors import CatalogueDamaged, IndexDamaged, NotReady
from silo_app.index.generations import Generation, open_current, pointer
from silo_app.index.known import vectors_of
from silo_app.index.storage import Storage

__all__ = ["Holdings"]


class Holdings:
    """One catalogue and one generation for many threads; each is opened at first use, by one thread while others wait."""

    def __init__(self) -> None:
        self._catalogue: ReopenedCatalogue | None = None
        self._looking = threading.Lock()
        self._generation: Generation | None = None
        self._pointer = (0, 0)
        self._opening = threading.Lock()

    @contextlib.contextmanager
    def catalogue(self, home: SiloHome) -> Iterator[Catalogue]:
        """Give the open catalogue to one thread at a time, for a look. Raises `NotReady`, `CatalogueDamaged`."""
        with self._looking:
            kept = self._catalogue = self._catalogue or ReopenedCatalogue(home.catalogue)
            try:
                yield kept.now()[0]
            except CatalogueDamaged:
                kept.close()  # it may be mended in place: the next look checks it whole
                raise

    def known(self, home: SiloHome, version: EncoderVersion, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return what the generation in use holds of these contents, as `index.known.known_vectors` does."""
        generation = self._current(home)
        return vectors_of(generation, digests) if generation and generation.info.encoder_version == version else {}

    def close(self) -> None:
        """Close both; a later look opens them again."""
        with self._looking:
            if self._catalogue is not None:
                self._catalogue.close()
        with self._opening:
            self._generation = None

    def _current(self, home: SiloHome) -> Generation | None:
        """Return the open generation; None if there is none that can be read: the next look tries again."""
        with self._opening:
            at = pointer(home.index)  # before reading: what is published meanwhile is read next
            if self._generation is None or at != self._pointer:
                self._generation = None
                with contextlib.suppress(NotReady, IndexDamaged):
                    self._generation, self._pointer = open_current(home.index, Storage.of(home)), at
            return self._generation
