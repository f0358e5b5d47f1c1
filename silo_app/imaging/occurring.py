"""Which stored values an image has, counted only as far as somebody asks: counting everything costs as much as decoding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["ALL", "FEW", "Occurring"]

FEW = 16
"""Rows that show whether a window shows anything."""
ALL = 512
"""Rows that are enough for percentiles."""


@dataclass(frozen=True, slots=True)
class Occurring:
    """The stored values of one image. Raises `ImageUnsupported` (blank) where fewer than two values occur."""

    index: NDArray[np.uint16]
    """(rows, columns): positions among the values that can be stored."""
    bits: int
    padding: NDArray[np.bool_] | None
    """(2 ** bits,): which of them mean "no pixel here"."""
    largest: int | None = None
    """The largest value, if it is known already."""

    @property
    def extremes(self) -> tuple[int, int]:
        """The smallest and the largest value, padding counted."""
        return int(self.index.min()), int(self.index.max()) if self.largest is None else self.largest

    def counts(self, rows: int) -> NDArray[np.int64]:
        """Return how often each value occurs outside the padding, int64 (2 ** bits,), in about so many rows.

        In all rows if fewer than two values do so in these.
        """
        for step in (max(1, len(self.index) // rows), 1):
            counts = np.bincount(self.index[::step].ravel(), minlength=1 << self.bits)
            if self.padding is not None:
                counts[self.padding] = 0
            if np.count_nonzero(counts) >= 2:
                return counts
        raise refusal(RefusalReason.BLANK, "all pixels have the same value, or are padding")
