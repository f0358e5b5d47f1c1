"""What a decrypted sum says, or that it says nothing: numbers first, then the update, refused as soon as it is noise."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import tallies
from silo_app.aggregation.body import Steps
from silo_app.aggregation.codec import FieldPlan, dequantise
from silo_app.aggregation.ring import DEGREE, PLAIN_BITS, SLOT_MODULUS
from silo_app.errors import UpdateRefused

__all__ = ["Opened", "norm_of", "read_numbers", "read_update"]

NOISE_VALUES = 4096  # fewer values are too few to tell noise from a sum
NOISE_EDGES = 8
NOISE_EVENNESS = 0.02  # noise fills a field evenly; a sum does not, not even one whose values were all clipped
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened sum."""

    update: NDArray[np.float32] | None
    """The weighted mean of the silos' updates, float32 (P,); None if the round was of numbers alone."""
    numbers: Mapping[str, float]
    """Sums over the silos; "samples" is how many images they train on together."""
    silos: tuple[str, ...]
    """Who is in the sum."""


def read_numbers(row: NDArray[np.uint64], names: Sequence[str], where: str) -> dict[str, float]:
    """Return the numbers in a sum's first row, uint64 (DEGREE,); a sum leaves the slots behind them empty."""
    used = tallies.slots(len(names))
    if row[used:].any():
        raise noise(where)
    return tallies.decode(names, row[:used], SLOT_MODULUS)


def read_update(
    rows: Iterator[NDArray[np.uint64]], size: int, *, plan: FieldPlan, steps: Steps, share: float, where: str
) -> NDArray[np.float32]:
    """Return the update in a sum's other rows, divided by the weight `share` that arrived, float32 (size,)."""
    update = np.empty(size, dtype=np.float32)
    values = plan.fields * DEGREE
    for row, start in zip(rows, range(0, size, values), strict=True):
        integers = plan.unpack(row)
        stop = min(start + values, size)
        used = integers[: stop - start]
        overfull = max(integers.max(), -integers.min()) > plan.limit or integers[stop - start :].any()
        if overfull or (plan.fields * plan.bits == PLAIN_BITS and _is_even(used, plan.bits)):
            raise noise(where)
        update[start:stop] = dequantise(used, steps.at(start, stop), share)
    return update


def norm_of(update: NDArray[np.float32]) -> float:
    """Return the Euclidean norm of `update`, float32 (P,), summed in an order that is the same everywhere."""
    parts = (update[start : start + CHUNK].astype(np.float64) for start in range(0, len(update), CHUNK))
    return float(np.sqrt(sum(float(np.square(part, out=part).sum()) for part in parts)))


def noise(where: str) -> UpdateRefused:
    """Return the refusal of what a wrong key, wrong masks or damage decrypt to."""
    return UpdateRefused(
        "the sum was refused: it decrypts to noise",
        where=where,
        remedy="Nothing was changed. If it repeats, tell the server's operator.",
    )


def _is_even(integers: NDArray[np.int32], bits: int) -> bool:
    """Return whether values, int32 (V,), fill a field evenly: narrower fields show noise by overflowing instead."""
    if len(integers) < NOISE_VALUES:
        return False
    counts = np.bincount((integers >> (bits - 3)) + NOISE_EDGES // 2, minlength=NOISE_EDGES)
    return bool(np.abs(counts / len(integers) - 1 / NOISE_EDGES).max() < NOISE_EVENNESS)
