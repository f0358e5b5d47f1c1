"""A silo's views as arrays: read once from the cache, kept in memory at the network's size.

Memory is N x S x S bytes, and 5 bytes for each label: 100,000 views at 64 px with 18 findings are 420 MB.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Split, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.encoder.labels import labels_of
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.transforms import squared
from silo_app.errors import NotReady
from silo_app.imaging.cache import RadiographCache

__all__ = ["Images", "load"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Views with pixels and labels; everything is aligned with `views`."""

    views: Sequence[View]
    pixels: NDArray[np.uint8]
    """(N, S, S)."""
    targets: NDArray[np.float32]
    """(N, F): 1 present, 0 absent or unknown."""
    known: NDArray[np.bool_]
    """(N, F): whether the finding is known to be present or absent."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.views)

    def where(self, chosen: NDArray[np.bool_]) -> "Images":
        """Return the views for which `chosen`, bool (N,), holds."""
        views = [view for view, take in zip(self.views, chosen, strict=True) if take]
        return Images(views, self.pixels[chosen], self.targets[chosen], self.known[chosen])

    def told_apart(self) -> "Images":
        """Return the same views, with those findings unknown that all views have, or none, of which it is known.

        Such a finding teaches only which hospital an image is from: a head that answers always the same, and, by the
        contrast, one point for all embeddings. (Of classes that a client lacks: Li and Zhan, FedRS, KDD 2021.)
        """
        present, absent = self.known & (self.targets > 0.5), self.known & (self.targets <= 0.5)
        both = present.any(axis=0) & absent.any(axis=0)
        return Images(self.views, self.pixels, self.targets * both, self.known & both)

    @property
    def patients(self) -> NDArray[np.str_]:
        """Each view's patient, (N,)."""
        return np.array([view.patient for view in self.views], dtype=np.str_)

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Whether each view is of a patient that is never trained on, (N,)."""
        return np.array([view.split is Split.HELD_OUT for view in self.views], dtype=np.bool_)


def load(
    home: SiloHome,
    spec: EncoderSpec,
    progress: Callable[[int, int], None] | None = None,
    *,
    split: Split | None = None,
    leave_out: bool = False,
) -> Images:
    """Read the silo's views, or those of one split, in the catalogue's order.

    Raises `NotReady` without a catalogue, `CatalogueDamaged`; and `NotReady` for a radiograph that is missing or damaged
    in the cache, unless such views are to be left out (`leave_out`): one bad study must not cost a silo's training.
    """
    with Catalogue.open(home.catalogue) as catalogue:
        views = catalogue.views(split)
    cache = RadiographCache(home.cache)
    pixels = np.empty((len(views), spec.input_size, spec.input_size), np.uint8)
    sound = np.ones(len(views), dtype=np.bool_)
    for index, view in enumerate(views):
        try:
            pixels[index] = squared(cache.read(view.digest), spec.input_size)
        except NotReady:
            if not leave_out:
                raise
            sound[index] = False
        if progress is not None:
            progress(index + 1, len(views))
    if not sound.all():
        _log.warning("%d of %d radiographs cannot be read and are left out: silo ingest", (~sound).sum(), len(views))
    targets, known = labels_of(views, spec)
    everything = Images(views, pixels, targets, known)
    return everything if sound.all() else everything.where(sound)
