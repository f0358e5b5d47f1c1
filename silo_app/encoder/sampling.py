"""Which views make a batch: rare kinds of cases are drawn more often than they occur; a skewed silo learns both sides."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["batches", "shares"]


def shares(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each view's probability to be drawn, float64 (N,); `targets` and `known` are (N, F).

    Views with the same known findings are one kind. Two kinds are drawn equally often; of more, each as often as the
    square root of its size, because equal shares would show the few views of a rare kind again and again.
    """
    patterns = np.unique(np.where(known, targets, -1), axis=0, return_inverse=True)[1].reshape(-1)  # (N,)
    counts = np.bincount(patterns)
    weight = (1 / counts if len(counts) == 2 else 1 / np.sqrt(counts))[patterns]
    return np.asarray(weight / weight.sum(), np.float64)


def batches(
    targets: NDArray[np.float32], known: NDArray[np.bool_], size: int, steps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches of `size` rows, int64 (size,), drawn with replacement."""
    share = shares(targets, known)
    for _ in range(steps):
        yield rng.choice(len(share), size=size, p=share)
