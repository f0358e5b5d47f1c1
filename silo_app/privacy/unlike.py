"""How unlike silos are: the Jensen-Shannon distance of their tables, beside what chance and noise alone would give.

The distance is the square root of the divergence to base 2 (Endres and Schindelin 2003): 0 for equal shares, 1 for tables
without a common cell. Two samples of one population differ too, the more the smaller they are: the expected divergence is
about (cells - 1) (1/n + 1/m) / (8 ln 2), as for the chi-square statistic; noise of scale b adds about
2 b^2 cells^2 (1/n^2 + 1/m^2) / (8 ln 2) where the cells are alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from silo_app.privacy.questions import TABLES

__all__ = ["Pair", "compare", "distance"]

CLEAR = 2.0
"""A distance of so many times what chance gives is called clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two silos and one table."""

    one: str
    other: str
    distance: float
    by_chance: float
    """What two samples of one population, of these sizes and with this noise, would differ by."""

    @property
    def clear(self) -> bool:
        """Whether the silos differ by more than chance and noise explain."""
        return self.distance > CLEAR * self.by_chance


def distance(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the Jensen-Shannon distance in [0, 1] of two tables of counts; None if one of them is empty."""
    if not sum(one) or not sum(other):
        return None
    p = [count / sum(one) for count in one]
    q = [count / sum(other) for count in other]
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += sum(share * math.log2(share / middle) for share in (a, b) if share > 0) / 2
    return math.sqrt(min(1.0, max(0.0, total)))


def compare(
    counts: Mapping[str, Sequence[int]], parts: int = 1, epsilons: Mapping[str, float | None] | None = None
) -> list[Pair]:
    """Return the distances of every two silos in one table; of silos that tell nothing there is none.

    Nor is there one where both have everybody in one and the same cell: there is nothing to compare.
    """
    noise = epsilons or {}
    pairs = []
    for one, other in combinations(sorted(counts), 2):
        found = distance(counts[one], counts[other])
        if found is not None and _cells(counts[one], counts[other]) > 1:
            chance = math.sqrt(
                min(
                    1.0,
                    _sampling(counts[one], counts[other], parts)
                    + _noise(one, counts, parts, noise)
                    + _noise(other, counts, parts, noise),
                )
            )
            pairs.append(Pair(one=one, other=other, distance=found, by_chance=chance))
    return pairs


def _cells(one: Sequence[int], other: Sequence[int]) -> int:
    """Return in how many cells either silo has somebody."""
    return sum(a > 0 or b > 0 for a, b in zip(one, other, strict=True))


def _sampling(one: Sequence[int], other: Sequence[int], parts: int) -> float:
    """Return the divergence that sampling alone explains."""
    return (_cells(one, other) - 1) * (parts / sum(one) + parts / sum(other)) / (8 * math.log(2))


def _noise(silo: str, counts: Mapping[str, Sequence[int]], parts: int, epsilons: Mapping[str, float | None]) -> float:
    """Return the divergence that one silo's noise explains."""
    epsilon = epsilons.get(silo)
    if epsilon is None:
        return 0.0
    cells, patients = sum(count > 0 for count in counts[silo]), sum(counts[silo]) / parts
    return 2 * (len(TABLES) / epsilon) ** 2 * cells**2 / patients**2 / (8 * math.log(2))
