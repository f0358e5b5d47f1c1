"""What silos do with the mean update once they have decrypted it: take it as it is, or with memory of earlier rounds.

The server sees no plaintext, so momentum (FedAvgM: Hsu, Qi and Brown, 2019) and adaptive steps (FedAdam: Reddi et al., ICLR
2021) are taken by every silo for itself. All silos open the same sums in the same order, also those that catch up, and
the arithmetic is elementwise float32 that IEEE 754 rounds exactly: the weights stay equal bit by bit. No torch here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.settings import AveragingPlan

__all__ = ["Moments", "step_of"]


@dataclass(frozen=True)
class Moments:
    """What remains of earlier rounds' mean updates; empty where the method keeps nothing."""

    first: NDArray[np.float32]
    """Their fading sum, float32 (P,), or (0,)."""
    second: NDArray[np.float32]
    """The fading mean of their squares, float32 (P,), or (0,)."""

    @classmethod
    def none(cls, plan: AveragingPlan | None = None, size: int = 0) -> "Moments":
        """Return the moments before the first round of `size` weights."""
        method = plan.method if plan else "mean"
        floor = plan.floor if plan else 0.0
        return cls(
            np.zeros(size if method != "mean" else 0, np.float32),
            np.full(size if method == "adam" else 0, floor**2, np.float32),
        )


def step_of(plan: AveragingPlan, moments: Moments, mean: NDArray[np.float32]) -> tuple[NDArray[np.float32], Moments]:
    """Return the step to take after a round with the mean update, float32 (P,), and the moments after it."""
    if plan.method == "mean":
        return mean, moments
    rate, keep = np.float32(plan.rate_used), np.float32(plan.keep_used)
    if plan.method == "momentum":
        first = keep * moments.first + mean
        return rate * first, Moments(first, moments.second)
    one, keep_squares = np.float32(1), np.float32(plan.keep_squares)
    first = keep * moments.first + (one - keep) * mean
    second = keep_squares * moments.second + (one - keep_squares) * (mean * mean)
    step = rate * first / (np.sqrt(second) + np.float32(plan.floor))
    return np.asarray(step, np.float32), Moments(first, second)
