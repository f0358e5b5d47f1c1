"""Turn updates into integers that add without overflow, several to a slot, and back (steps 1-3 and 7 of the codec).

A field of b bits holds signed integers up to L = 2^(b-1) - 1. Weights sum to 1 and each of n silos may round up by one,
so the silos share out L between them (`quota`) and no bit is spent on headroom for their number. The integers are
rounded at random without bias; what rounding and clipping lost stays at the silo and joins its next update (error
feedback; Karimireddy et al. 2019, arXiv:1901.09847).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.layout import Layout
from silo_app.aggregation.ring import DEGREE, PLAIN_BITS, SLOT_MODULUS

__all__ = ["WIDTHS", "FieldPlan", "dequantise", "next_scales", "quantise"]

WIDTHS = (10, 12, 16, 25)
FLOAT32_QUOTA = 1 << 12


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

    def pack(self, values: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return a row of slots, uint64 (DEGREE,) below t, of a block's values within `limit`, int32 (V,)."""
        fields = values.reshape(self.fields, DEGREE) if len(values) == self.fields * DEGREE else self._padded(values)
        packed: NDArray[np.int64] = fields[-1].astype(np.int64)
        for field in fields[-2::-1]:
            packed <<= self.bits
            packed += field
        packed &= SLOT_MODULUS - 1
        return packed.view(np.uint64)

    def unpack(self, row: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Undo `pack` on a sum of rows: return all fields, int32 (fields * DEGREE,); after V come zeros."""
        values = np.empty((self.fields, DEGREE), dtype=np.int32)
        half = 1 << (self.bits - 1)
        packed = row.astype(np.int64)
        packed <<= 64 - PLAIN_BITS
        packed >>= 64 - PLAIN_BITS  # with its sign
        for field in range(self.fields - 1):
            packed += half  # the field with its sign; the rest pays the borrow back
            np.bitwise_and(packed, (1 << self.bits) - 1, out=values[field], casting="unsafe")
            packed >>= self.bits
        values[:-1] -= half
        values[-1] = packed
        return values.reshape(-1)

    def _padded(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return `values` as int32 (fields, DEGREE), zeros at the end."""
        padded = np.zeros(self.fields * DEGREE, dtype=np.int32)
        padded[: len(values)] = values
        return padded.reshape(self.fields, DEGREE)


def quantise(
    values: NDArray[np.float32],
    steps: NDArray[np.float32],
    weight: float,
    quota: int,
    random: np.random.Generator,
) -> NDArray[np.int32]:
    """Return `values * weight / steps` as integers, rounded at random without bias, clipped to `quota`; all (V,).

    Integers below 2^12 leave float32 eleven bits to round by; larger ones are computed in float64.
    """
    kind: Any = np.float32 if quota < FLOAT32_QUOTA else np.float64
    scaled: NDArray[np.floating[Any]] = values.astype(kind)
    with np.errstate(over="ignore"):  # infinite is clipped like anything too large
        np.multiply(scaled, kind(weight), out=scaled)
        np.divide(scaled, steps, out=scaled)
    np.add(scaled, random.random(len(scaled), dtype=kind), out=scaled)
    np.floor(scaled, out=scaled)
    return np.clip(scaled, -quota, quota, out=scaled).astype(np.int32)


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
    places = starts[filled]
    largest[filled] = np.maximum(np.maximum.reduceat(update, places), -np.minimum.reduceat(update, places))
    return np.maximum(np.maximum(headroom * np.maximum(largest, resolution), kept), floor)
