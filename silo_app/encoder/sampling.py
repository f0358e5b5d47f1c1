"""Which views make a batch: rare kinds of cases are drawn more often than they occur; a skewed silo learns both sides."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches", "positive_weights", "shares"]

_HEAVIEST = 20.0


def shares(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each view's probability to be drawn, float64 (N,); `targets` and `known` are (N, F).

    Views with the same known findings are one kind. Two kinds are drawn equally often; of more, each as often as the
    square root of its size, because equal shares would show the few views of a rare kind again and again.
    """
    patterns = np.unique(np.where(known, targets, -1), axis=0, return_inverse=True)[1].reshape(-1)  # (N,)
    counts = np.bincount(patterns)
    weight = (1 / counts if len(counts) == 2 else 1 / np.sqrt(counts))[patterns]
    return np.asarray(weight / weight.sum(), np.float64)


def positive_weights(
    targets: NDArray[np.float32], known: NDArray[np.bool_], share: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return how much a present finding counts against an absent one, float32 (F,), so that both sides weigh alike.

    What `share` (N,) already balances gets 1; no weight is above 20 or below 1/20. Every silo balances for itself, so
    that silos with unlike case mixes pull the shared findings head towards the same threshold.
    """
    present = (share[:, None] * (known & (targets > 0.5))).sum(axis=0)  # (F,)
    absent = (share[:, None] * (known & (targets <= 0.5))).sum(axis=0)
    both = (present > 0) & (absent > 0)
    ratio = np.divide(absent, present, out=np.ones_like(present), where=both)
    return np.asarray(np.clip(ratio, 1 / _HEAVIEST, _HEAVIEST), np.float32)


def batches(share: NDArray[np.float64], size: int, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches of `size` rows, int64 (size,), drawn with replacement by `share` (N,)."""
    for _ in range(steps):
        yield rng.choice(len(share), size=size, p=share)
