"""The secret order in which a silo's slots hold its views: another for each generation, the same in all its processes."""

import secrets

import numpy as np
from numpy.typing import NDArray

__all__ = ["new_seed", "order_of"]


def new_seed() -> int:
    """Return the secret of a new order, 128 bits."""
    return secrets.randbits(128)


def order_of(count: int, seed: int) -> NDArray[np.int64]:
    """Return the row of the index that each slot holds, int64 (count,)."""
    return np.random.default_rng(seed).permutation(count)
