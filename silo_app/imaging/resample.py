"""Area averaging: each output pixel is the mean of exactly the area it covers, so nothing thin is skipped.

Averaging is a product with a banded matrix of shares, once for rows and once for columns. A band is cut into blocks whose
inputs stay in the processor's cache. Rows are whole lines of memory: each output is one product of a few shares with the
lines that it covers. Columns are not, and a small dense matrix with some zeros is faster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ramp", "area_mean", "ramp_of", "target_shape"]

MAX_SIDE = 512
"""Pixels of the longest side of a radiograph; no encoder of this project looks at more."""

_BLOCK_OF_ROWS = 8
"""Outputs of one block, whose inputs stay in the processor's cache."""
_BLOCK_OF_COLUMNS = 16
"""Outputs of one dense block: larger ones multiply more zeros, smaller ones call more often."""
_QUARTER_GREY = 1 / 1020
"""What a ramp may differ from its curve: a quarter of one of the 255 steps that the cache keeps."""

Brightness = Callable[[NDArray[np.uint16], NDArray[np.float32]], None]


@dataclass(frozen=True, slots=True)
class Ramp:
    """A curve that is a straight line between two values and flat outside: every linear window is one."""

    low: int
    high: int
    slope: float
    offset: float
    cuts: bool
    """Whether values occur that have to be cut."""

    def applied(self, mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the brightness of averages of values that were cut to [low, high]."""
        return mean * np.float32(self.slope) + np.float32(self.offset)


def target_shape(rows: int, columns: int, *, aspect: float = 1.0, max_side: int = MAX_SIDE) -> tuple[int, int, float]:
    """Return (height, width) of square pixels, never more than there are, and the width of one in input columns.

    `aspect` is the height of an input pixel divided by its width.
    """
    step = max(1.0, aspect, rows * aspect / max_side, columns / max_side)
    height = max(1, round(rows * aspect / step))
    width = max(1, round(columns / step))
    return min(height, rows), min(width, columns), step


def ramp_of(curve: NDArray[np.float32], low: int, high: int) -> Ramp | None:
    """Return the ramp that a curve is for the values `low` to `high`, or None if it is none.

    An average of a line is the line of an average: for a ramp values are cut, averaged and only then made brightness,
    which spares the look-up of every pixel and gives the same.
    """
    part = curve[low : high + 1]
    inside = np.flatnonzero((part > 0) & (part < 1))
    if len(inside) < 2:
        return None
    first, last = int(inside[0]), int(inside[-1])
    slope = float(part[last] - part[first]) / (last - first)
    offset = float(part[first]) - slope * (low + first)
    start, end = low + max(0, first - 1), low + min(len(part) - 1, last + 1)
    found = Ramp(low=start, high=end, slope=slope, offset=offset, cuts=(start, end) != (low, high))
    values = np.clip(np.arange(low, high + 1), found.low, found.high)
    return found if np.abs(found.applied(values.astype(np.float32)) - part).max() <= _QUARTER_GREY else None


def area_mean(index: NDArray[np.uint16], curve: NDArray[np.float32] | Ramp, height: int, width: int) -> NDArray[np.float32]:
    """Look (H, W) up in a curve and reduce it to float32 (height, width) by exact area averages.

    Both at once: the looked-up image of full size, which would not fit into the processor's cache, is never made.
    """
    rows = _rows(index, _cut_to(curve) if isinstance(curve, Ramp) else _looked_up(curve), height)  # (height, W)
    mean = _columns(rows, width)
    return curve.applied(mean) if isinstance(curve, Ramp) else mean


def _cut_to(ramp: Ramp) -> Brightness:
    low, high = np.uint16(ramp.low), np.uint16(ramp.high)

    def cut(values: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
        np.copyto(out, np.clip(values, low, high) if ramp.cuts else values)

    return cut


def _looked_up(curve: NDArray[np.float32]) -> Brightness:
    def look_up(values: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
        np.take(curve, values, out=out, mode="clip")  # "raise" would make a copy of `out`

    return look_up


def _rows(index: NDArray[np.uint16], brightness: Brightness, count: int) -> NDArray[np.float32]:
    """Average the rows of (H, W) into `count` equal intervals; a row cut by a border counts by its part."""
    blocks = _blocks(index.shape[0], count, _BLOCK_OF_ROWS)
    room = np.empty((max(block.stop - block.start for block in blocks), index.shape[1]), np.float32)
    mean = np.empty((count, index.shape[1]), np.float32)
    outputs = iter(mean)
    for block in blocks:
        brightness(index[block.start : block.stop], room[: block.stop - block.start])
        for start, shares in block.single:  # no zeros to multiply, and nothing for the library to arrange anew
            np.dot(shares, room[start : start + len(shares)], out=next(outputs))
    return mean


def _columns(rows: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Average the columns of (height, W) into `count` equal intervals, as `_rows` does."""
    mean = np.empty((rows.shape[0], count), np.float32)
    for block in _blocks(rows.shape[1], count, _BLOCK_OF_COLUMNS):
        mean[:, block.first : block.last] = rows[:, block.start : block.stop] @ block.shares.T
    return mean


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    first: int
    last: int
    """Outputs [first, last)."""
    start: int
    stop: int
    """Inputs [start, stop)."""
    shares: NDArray[Any]
    """float32 (last - first, stop - start); each row adds up to 1."""
    single: tuple[tuple[int, NDArray[Any]], ...]
    """For each output, its first input counted from `start`, and the shares of those that it covers."""


@lru_cache(maxsize=64)
def _blocks(available: int, count: int, size: int) -> tuple[_Block, ...]:
    """Cut the averaging of `available` inputs to `count` outputs into blocks of `size` outputs."""
    return tuple(_block(available, count, first, min(first + size, count)) for first in range(0, count, size))


def _block(available: int, count: int, first: int, last: int) -> _Block:
    scale = available / count
    start, stop = int(np.floor(first * scale)), min(available, int(np.ceil(last * scale)))
    borders = np.arange(first, last)[:, None] * scale  # (outputs, 1)
    places = np.arange(start, stop)[None, :]  # (1, inputs)
    covered = np.minimum(places + 1, borders + scale) - np.maximum(places, borders)
    shares = np.clip(covered, 0, None)
    shares /= shares.sum(axis=1, keepdims=True)
    shares = shares.astype(np.float32)
    return _Block(first, last, start, stop, shares, tuple(_trimmed(line) for line in shares))


def _trimmed(line: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]]:
    """Return where the shares of one output begin, and those shares alone."""
    inputs = np.flatnonzero(line)
    return int(inputs[0]), line[inputs[0] : inputs[-1] + 1].copy()
