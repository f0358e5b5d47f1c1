"""Which views make a batch: rare kinds of cases are drawn more often than they occur; a skewed silo learns both sides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Weighable", "batches", "positive_weights", "shares"]

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


@dataclass(frozen=True, slots=True)
class Weighable:
    """What a silo's training views teach, in views: what its update weighs where that is not simply their number."""

    telling: float
    """As many views, half with and half without a finding, would tell the findings apart as well; at most all that do."""
    silent: int
    """Views of which nothing is known that the silo's others have otherwise: they teach only by themselves."""

    @classmethod
    def of(cls, targets: NDArray[np.float32], known: NDArray[np.bool_]) -> Self:
        """Return it for views with labels (N, F).

        What n views with and m without a finding say of the difference has the variance of 1/n + 1/m: so they say as much
        as 4 n m / (n + m) views of which half have it. A silo with 500 ill patients and one well would else outweigh those
        that know both sides, and teach that one image.
        """
        present, absent = known & (targets > 0.5), known & (targets <= 0.5)
        have, lack = present.sum(axis=0).astype(np.float64), absent.sum(axis=0).astype(np.float64)  # (F,)
        both = (have > 0) & (lack > 0)
        worth = np.divide(4 * have * lack, have + lack, out=np.zeros_like(have), where=both)
        telling = int((known & both).any(axis=1).sum())
        return cls(min(float(telling), float(worth.sum())), len(known) - telling)

    def weight(self, silent: float) -> int:
        """Return what the silo weighs, at least 1, if a silent view counts `silent` views."""
        return max(1, round(self.telling + silent * self.silent))


def batches(share: NDArray[np.float64], size: int, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches of `size` rows, int64 (size,), drawn with replacement by `share` (N,)."""
    for _ in range(steps):
        yield rng.choice(len(share), size=size, p=share)
