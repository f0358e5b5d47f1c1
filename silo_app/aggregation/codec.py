"""Turn updates into integers that add without overflow, several to a slot, and back (steps 1-3 and 7 of the codec).

A field of b bits holds signed integers up to L = 2^(b-1) - 1. Weights sum to 1 and each of n silos may round up by one,
so the silos share out L between them (`quota`) and no bit is spent on headroom for their number. The integers are
rounded at random without bias; what rounding and clipping lost stays at the silo and joins its next update (error
feedback; Karimireddy et al. 2019, arXiv:1901.09847).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.layout import Layout
from silo_app.aggregation.ring import DEGREE, PLAIN_BITS

__all__ = ["WIDTHS", "FieldPlan", "dequantise", "next_scales", "quantise"]

WIDTHS = (10, 12, 16, 25)
CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """How values of `bits` bits lie in slots: `fields` to a slot, `fields * DEGREE` to a block."""

    bits: int

    @property
    def fields(self) -> int:
        """The values in one slot."""
        return PLAIN_BITS // self.bits

    @property
    def limit(self) -> int:
        """The largest magnitude L of a field's sum."""
        return (1 << (self.bits - 1)) - 1

    def blocks(self, size: int) -> int:
        """Return how many blocks hold `size` values."""
        return -(-size // (self.fields * DEGREE))

    def levels(self, silos: int) -> int:
        """Return how many steps one scale has when `silos` add up, each perhaps rounding up by one."""
        return self.limit - silos

    def quota(self, weight: float, silos: int) -> int:
        """Return the largest magnitude that a silo of `weight` may put into a field; all quotas sum to at most L."""
        return 1 + int(weight * self.levels(silos))

    def pack(self, values: NDArray[np.int32], modulus: int) -> NDArray[np.uint64]:
        """Return slots, uint64 (blocks, DEGREE) below `modulus`, of values within `limit`, int32 (P,)."""
        blocks = self.blocks(len(values))
        slots = np.empty((blocks, DEGREE), dtype=np.uint64)
        for block, fields in enumerate(self._rows(values, blocks)):
            packed = fields[-1].astype(np.int64)
            for field in fields[-2::-1]:
                packed = (packed << self.bits) + field
            slots[block] = np.where(packed < 0, packed + modulus, packed)
        return slots

    def unpack(self, slots: NDArray[np.uint64], modulus: int) -> NDArray[np.int32]:
        """Undo `pack` on a sum of slots: return all fields, int32 (blocks * fields * DEGREE,); after P come zeros."""
        values = np.empty((len(slots), self.fields, DEGREE), dtype=np.int32)
        half = 1 << (self.bits - 1)
        mask = (1 << self.bits) - 1
        for block, row in enumerate(slots):
            packed = row.astype(np.int64)
            packed[packed > modulus // 2] -= modulus
            for field in range(self.fields - 1):
                low = ((packed + half) & mask) - half  # the field with its sign; the rest pays the borrow back
                values[block, field] = low
                packed = (packed - low) >> self.bits
            values[block, -1] = packed
        return values.reshape(-1)

    def _rows(self, values: NDArray[np.int32], blocks: int) -> NDArray[np.int32]:
        """Return `values` as int32 (blocks, fields, DEGREE), zeros at the end."""
        padded = np.zeros(blocks * self.fields * DEGREE, dtype=np.int32)
        padded[: len(values)] = values
        return padded.reshape(blocks, self.fields, DEGREE)


def quantise(
    values: NDArray[np.float32], steps: NDArray[np.float32], weight: float, quota: int, random: np.random.Generator
) -> NDArray[np.int32]:
    """Return `values * weight / steps` as integers, rounded at random without bias, clipped to `quota`; all (P,)."""
    integers = np.empty(len(values), dtype=np.int32)
    for start in range(0, len(values), CHUNK):
        part = slice(start, start + CHUNK)
        scaled = values[part] * weight / steps[part].astype(np.float64)
        scaled += random.random(len(scaled))
        np.floor(scaled, out=scaled)
        integers[part] = np.clip(scaled, -quota, quota, out=scaled)
    return integers


def dequantise(integers: NDArray[np.int32], steps: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Return `integers * steps / weight`, float32 (P,): an update in its own units again."""
    values = integers.astype(np.float32)  # exact: fields have at most 25 bits, sign included
    values *= steps
    values /= np.float32(weight)
    return values


def next_scales(
    update: NDArray[np.float32],
    layout: Layout,
    *,
    resolution: NDArray[np.float64],
    kept: NDArray[np.float64],
    headroom: float,
    floor: float,
) -> NDArray[np.float64]:
    """Return the scale of every tensor for the next round, float64 (T,), from what all silos just decrypted.

    A scale is the largest weight change that a round can carry. `headroom` times the largest change of the last round
    leaves room for growth; `resolution`, float64 (T,), is the smallest change that the last round could have shown.
    `kept`, float64 (T,), is what remains of the last scales: unlike silos' updates cancel in the mean, most of all
    when training converges, so a scale that follows the mean at once would clip every one of them.
    """
    starts = np.concatenate([[0], np.cumsum(layout.sizes)[:-1]])
    filled = layout.sizes > 0
    largest = np.zeros(len(layout.sizes))
    largest[filled] = np.maximum.reduceat(np.abs(update), starts[filled])
    return np.maximum(np.maximum(headroom * np.maximum(largest, resolution), kept), floor)
