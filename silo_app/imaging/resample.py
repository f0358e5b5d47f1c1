"""Area averaging: each output pixel is the mean of exactly the area it covers, so nothing thin is skipped."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["area_mean", "target_shape"]

MAX_SIDE = 512
"""Pixels of the longest side of a radiograph; no encoder of this project looks at more."""


def target_shape(rows: int, columns: int, *, aspect: float = 1.0, max_side: int = MAX_SIDE) -> tuple[int, int, float]:
    """Return (height, width) of square pixels, never more than there are, and the width of one in input columns.

    `aspect` is the height of an input pixel divided by its width.
    """
    step = max(1.0, aspect, rows * aspect / max_side, columns / max_side)
    height = max(1, round(rows * aspect / step))
    width = max(1, round(columns / step))
    return min(height, rows), min(width, columns), step


def area_mean(index: NDArray[np.uint16], curve: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Look (H, W) up in a curve and reduce it to float32 (height, width) by exact area averages.

    Both at once: the looked-up image of full size, which would not fit into the processor's cache, is never made.
    """
    rows = _rows(index, curve, height)  # (height, W)
    return np.ascontiguousarray(_rows(np.ascontiguousarray(rows.T), None, width).T)


def _rows(pixels: NDArray[Any], curve: NDArray[np.float32] | None, count: int) -> NDArray[np.float32]:
    """Average the rows of (H, W) into `count` equal intervals; a row cut by a border counts by its part."""
    available = pixels.shape[0]
    if count == available:
        return pixels if curve is None else curve[pixels]
    scale = available / count
    low = np.arange(count) * scale  # (count,) borders in input rows
    high = low + scale
    start = np.floor(low).astype(np.int64)
    total = np.zeros((count, pixels.shape[1]), np.float32)
    for tap in range(int(np.ceil(scale)) + 1):
        row = start + tap
        share = np.clip(np.minimum(row + 1, high) - np.maximum(row, low), 0, None) / scale
        taken = pixels[np.minimum(row, available - 1)]
        total += (taken if curve is None else curve[taken]) * share[:, None].astype(np.float32)
    return total
