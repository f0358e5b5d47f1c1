"""Numbers beside an update: counts, losses, metrics, summed exactly and as hidden as the update.

A number is fixed-point with 20 binary digits after the point, in two slots: the low 40 bits, and the rest with its
sign. Even 128 silos' low parts stay below 2^47, and a number of up to 2^58 in magnitude does so with its high part.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.ring import DEGREE
from silo_app.errors import UpdateRefused

__all__ = ["LIMIT", "decode", "encode", "slots"]

FRACTION_BITS = 20
LOW_BITS = 40
PARTS = 2
LIMIT = 2.0**58
"""What a number must stay below."""


def slots(count: int) -> int:
    """Return how many slots `count` numbers take."""
    return PARTS * count


def encode(numbers: Mapping[str, float], modulus: int) -> NDArray[np.uint64]:
    """Return the numbers in order of their names, uint64 (slots,) below `modulus`.

    Raises `UpdateRefused` for a number that is not finite or too large, or too many of them.
    """
    for name, number in numbers.items():
        if not math.isfinite(number) or abs(number) >= LIMIT:
            raise UpdateRefused(
                f"its number {name!r} is {number}, not within 2^58", where="numbers", remedy="This silo sits out the round."
            )
    if slots(len(numbers)) > DEGREE:
        raise UpdateRefused(f"{len(numbers)} numbers", where="numbers", remedy=f"Send at most {DEGREE // PARTS}.")
    parts: list[int] = []
    for name in sorted(numbers):
        fixed = _fixed(numbers[name])
        parts += [fixed & ((1 << LOW_BITS) - 1), (fixed >> LOW_BITS) % modulus]
    return np.array(parts, dtype=np.uint64)


def decode(names: Sequence[str], summed: NDArray[np.uint64], modulus: int) -> dict[str, float]:
    """Return the sums of the numbers `names` (sorted), from what `encode` gave, added modulo `modulus`."""
    sums = {}
    for index, name in enumerate(names):
        low, high = (int(part) for part in summed[PARTS * index : PARTS * (index + 1)])
        high -= modulus if high > modulus // 2 else 0
        sums[name] = math.ldexp((high << LOW_BITS) + low, -FRACTION_BITS)
    return sums


def _fixed(number: float) -> int:
    """Return a number as integer of 2^-20, exact for integers however large."""
    return number << FRACTION_BITS if isinstance(number, int) else round(math.ldexp(number, FRACTION_BITS))
