"""A silo's look taken out of its embeddings: centred and whitened by what its own training views have in common; no torch.

Neighbours across hospitals are chosen by the look (detector, borders, exposure) before they are chosen by the findings.
A mean and a covariance describe a look; they describe a case mix too, so a silo with only one kind of case loses some of
what tells its cases apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Look", "look_of"]

_TINY = 1e-6


@dataclass(frozen=True)
class Look:
    """What is subtracted from an embedding, float64 (D,), and what it is multiplied with then, float64 (D, D)."""

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    def removed(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), without the look."""
        plain = self.transformed(vectors)
        return np.asarray(plain / np.maximum(np.linalg.norm(plain, axis=1, keepdims=True), _TINY), np.float32)

    def transformed(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the vectors centred and whitened, float64 (N, D), not yet of unit length."""
        plain: NDArray[np.float64] = (vectors.astype(np.float64) - self.mean) @ self.matrix
        return plain


def look_of(vectors: NDArray[np.float32], *, whiten: bool = True, shrink: float = 0.1) -> Look:
    """Return the look of a silo's training views, float32 (N, D), at least one.

    `shrink` in [0, 1] draws the covariance towards a multiple of the identity, because a small silo cannot know D x D
    numbers; at 1, and without `whiten`, directions keep their proportions and only the mean is removed.
    """
    exact = vectors.astype(np.float64)
    mean, side = exact.mean(axis=0), exact.shape[1]
    if not whiten:
        return Look(mean, np.eye(side))
    covariance = (exact - mean).T @ (exact - mean) / len(exact)
    level = np.trace(covariance) / side
    values, axes = np.linalg.eigh((1 - shrink) * covariance + shrink * level * np.eye(side))
    return Look(mean, (axes / np.sqrt(np.maximum(values, _TINY * max(level, _TINY)))) @ axes.T)
