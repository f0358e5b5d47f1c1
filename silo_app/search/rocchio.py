"""More like these, less like those: a query moved toward and away from examples (relevance feedback).

J. J. Rocchio, "Relevance feedback in information retrieval", in G. Salton (ed.), The SMART Retrieval System, Prentice-Hall
1971, pp. 313-323; the usual weights are those of Manning, Raghavan and Schütze, "Introduction to Information Retrieval",
2008, section 9.1.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Embedding
from silo_app.errors import ConfigInvalid

__all__ = ["USUAL", "Weights", "mean_embedding", "refined"]

_NOTHING = 1e-6
"""A shorter vector is what rounding left of one: it has no direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much the query, the wanted and the unwanted examples count. Raises `ConfigInvalid` below 0."""

    query: float = 1.0
    more: float = 0.75
    less: float = 0.15

    def __post_init__(self) -> None:
        """Check them."""
        if not all(math.isfinite(value) and value >= 0 for value in (self.query, self.more, self.less)):
            raise ConfigInvalid(
                f"the weights {self.query:g}, {self.more:g} and {self.less:g} are not all numbers from 0 on",
                where="weights",
                remedy="Give weights of 0 or more; 0 leaves the examples out.",
            )


USUAL = Weights()


def refined(
    query: Embedding, more: Sequence[Embedding] = (), less: Sequence[Embedding] = (), weights: Weights = USUAL
) -> Embedding:
    """Return the unit vector along `weights.query * query + weights.more * mean(more) - weights.less * mean(less)`.

    All are unit vectors, float32 (D,); without examples the query stays as it is. Raises `ConfigInvalid` if they cancel.
    """
    if not len(more) and not len(less):
        return query
    scale = max(1.0, weights.query, weights.more, weights.less)  # the direction stays, and no weight is too great for a norm
    moved = weights.query / scale * query.astype(np.float64)
    if len(more):
        moved = moved + weights.more / scale * _mean(more)
    if len(less):
        moved = moved - weights.less / scale * _mean(less)
    return _unit(moved, "the query and its examples cancel: nothing is left to search for")


def mean_embedding(vectors: Sequence[Embedding]) -> Embedding:
    """Return the unit vector along the mean of unit vectors, float32 (D,), at least one. Raises as `refined` does."""
    return _unit(_mean(vectors), "the images of this case point in opposite directions")


def _mean(vectors: Sequence[Embedding]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean(np.stack(vectors).astype(np.float64), axis=0)
    return mean


def _unit(vector: NDArray[np.float64], problem: str) -> Embedding:
    norm = float(np.linalg.norm(vector))
    if not norm > _NOTHING:
        raise ConfigInvalid(problem, where="examples", remedy="Leave an example out, or give other weights.")
    return np.asarray(vector / norm, np.float32)
