"""From an update to integers and back: weigh, clip, round stochastically, pack several signed fields into one slot.

Sums of packed slots are sums of the fields as long as no field overflows. The silos' weights add up to at most 1, so the
sum of what they send stays inside one field, and no headroom bits are spent on the number of silos.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.layout import Layout

__all__ = ["FIELDS_PER_SLOT", "Scales", "dequantise", "pack", "quantise", "slots_of", "unpack"]

FIELDS_PER_SLOT = {25: 2, 16: 3, 12: 4, 10: 5}
"""Signed fields of so many bits that fit one slot of a 50-bit plaintext modulus."""

FIRST_BITS = 25
FIRST_CLIP = 1.0
"""Round 0 knows no scale yet: wide fields over [-1, 1], a step of 6e-8."""
MARGIN = 4.0
"""A silo's update is larger than the sum's mean: later fields reach to 4 x the last global update of the tensor."""
FLOOR = 0.01
"""A tensor that hardly moved keeps at least 1 % of the largest tensor's reach."""


@dataclass(frozen=True)
class Scales:
    """How far the fields of each tensor reach, float32 (T,), and their width; known to every silo, telling nothing new."""

    reach: NDArray[np.float32]
    bits: int

    @classmethod
    def first(cls, layout: Layout) -> "Scales":
        """Return the scales of round 0."""
        return cls(np.full(len(layout.names), FIRST_CLIP, np.float32), FIRST_BITS)

    @classmethod
    def after(cls, layout: Layout, last: NDArray[np.float32], bits: int) -> "Scales":
        """Return the scales after a round whose decrypted global update was `last`, float32 (P,)."""
        largest = layout.largest(last)
        overall = float(largest.max(initial=0.0)) or 1e-3
        return cls(np.float32(MARGIN) * np.maximum(largest, np.float32(FLOOR * overall)), bits)

    def units(self, layout: Layout, silos: int) -> NDArray[np.float32]:
        """Return the value of one step of each weight's field, float32 (P,), when `silos` add up."""
        return layout.spread(self.reach / np.float32(_limit(self.bits, silos)))


def _limit(bits: int, silos: int) -> int:
    """Return the largest weighted magnitude: rounding up may add one a silo, so that much of the field stays free."""
    return (1 << (bits - 1)) - 1 - silos


def quantise(
    update: NDArray[np.float32],
    units: NDArray[np.float32],
    weight: float,
    bits: int,
    silos: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the weighted update in steps, int64 (P,), rounded up or down with a probability that keeps its mean."""
    steps = update / units
    steps *= np.float32(weight)
    bound = np.float32(weight * _limit(bits, silos))
    np.clip(steps, -bound, bound, out=steps)
    steps += rng.random(len(steps), dtype=np.float32)
    return np.asarray(np.floor(steps), dtype=np.int64)


def dequantise(steps: NDArray[np.int64], units: NDArray[np.float32], arrived: float) -> NDArray[np.float32]:
    """Return the mean update, float32 (P,), of a sum in steps; `arrived` is the share of the weights that is in it."""
    return (steps * units.astype(np.float64) / arrived).astype(np.float32)


def slots_of(size: int, bits: int) -> int:
    """Return how many slots `size` fields need."""
    return -(-size // FIELDS_PER_SLOT[bits])


def pack(fields: NDArray[np.int64], bits: int, modulus: int) -> NDArray[np.uint64]:
    """Pack signed fields, int64 (P,), into slots, uint64 (S,): sum over j of field_j * 2^(bits * j), modulo `modulus`."""
    count = FIELDS_PER_SLOT[bits]
    padded = np.zeros(slots_of(len(fields), bits) * count, np.int64)
    padded[: len(fields)] = fields
    rows = padded.reshape(-1, count)
    slots = rows[:, count - 1].copy()
    for j in range(count - 2, -1, -1):
        slots <<= bits
        slots += rows[:, j]
    slots += np.where(slots < 0, modulus, 0)
    return slots.astype(np.uint64)


def unpack(slots: NDArray[np.uint64], size: int, bits: int, modulus: int) -> NDArray[np.int64]:
    """Undo `pack`, also for sums: return int64 (size,). Lower fields borrow from the higher ones when negative."""
    count = FIELDS_PER_SLOT[bits]
    rest = slots.astype(np.int64)
    rest -= np.where(rest > modulus // 2, modulus, 0)
    half, whole = 1 << (bits - 1), 1 << bits
    fields = np.empty((len(rest), count), np.int64)
    for j in range(count):
        field = ((rest + half) & (whole - 1)) - half
        fields[:, j] = field
        rest = (rest - field) >> bits
    return fields.reshape(-1)[:size]
