"""What silos do with the mean update once they have decrypted it; no torch.

The server sees no plaintext, so momentum (FedAvgM: Hsu, Qi and Brown, 2019) is kept by every silo. The mean is the same
everywhere, hence so is the momentum, as long as a silo has seen every round.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Momentum"]


@dataclass(frozen=True)
class Momentum:
    """What remains of earlier rounds' updates, float32 (P,)."""

    velocity: NDArray[np.float32]

    @classmethod
    def none(cls, size: int) -> "Momentum":
        """Return the momentum before the first round."""
        return cls(np.zeros(size, np.float32))

    def after(self, mean: NDArray[np.float32], keep: float) -> "Momentum":
        """Return the momentum after a round with the mean update, float32 (P,); its velocity is the step to take.

        `keep` in [0, 1) is how much of the earlier velocity stays; at 0 the step is the mean itself.
        """
        return Momentum(np.asarray(keep * self.velocity + mean, np.float32))
