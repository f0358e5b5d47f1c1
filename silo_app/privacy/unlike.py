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
    counts: Mapping[str, Sequence[float]],
    parts: int = 1,
    epsilons: Mapping[str, float | None] | None = None,
    patients: Mapping[str, int] | None = None,
) -> list[Pair]:
    """Return the distances of every two silos in one table; of silos that tell nothing there is none.

    Nor is there one where both have everybody in one and the same cell: there is nothing to compare. With `patients`, how
    many each silo has in all, those of cells that are not told lie where they make the two most alike (`_filled`).
    """
    noise, everybody = epsilons or {}, patients or {}
    pairs = []
    for name, other_name in combinations(sorted(counts), 2):
        if not sum(counts[name]) or not sum(counts[other_name]):
            continue
        one, other = _filled(counts[name], counts[other_name], everybody.get(name, 0), everybody.get(other_name, 0))
        found = distance(one, other)
        if found is not None and _cells(one, other) > 1:
            chance = math.sqrt(
                min(
                    1.0,
                    _sampling(one, other, parts)
                    + _noise(one, parts, noise.get(name))
                    + _noise(other, parts, noise.get(other_name)),
                )
            )
            pairs.append(Pair(one=name, other=other_name, distance=found, by_chance=chance))
    return pairs


def _filled(
    one: Sequence[float], other: Sequence[float], patients: int, other_patients: int
) -> tuple[list[float], list[float]]:
    """Return two tables with those patients who are in no told cell, and a last cell for the rest of them.

    A cell that is not told is small, not empty: taken for empty, it makes a small silo unlike a large one of the same
    patients. So a silo's missing patients are put into the cells that only the other tells, by the other's shares.
    """
    missing, other_missing = max(0.0, patients - sum(one)), max(0.0, other_patients - sum(other))
    ratio = (sum(one) + missing) / (sum(other) + other_missing)
    added, left = _added(one, other, missing, ratio)
    other_added, other_left = _added(other, one, other_missing, 1 / ratio)
    return [*added, left], [*other_added, other_left]


def _added(told: Sequence[float], others: Sequence[float], missing: float, ratio: float) -> tuple[list[float], float]:
    """Return a table with missing patients where only the other tells some, `ratio` for each of those, and who is left."""
    wanted = [count * ratio if not own else 0.0 for own, count in zip(told, others, strict=True)]
    share = min(1.0, missing / sum(wanted)) if any(wanted) else 0.0
    return [own + share * more for own, more in zip(told, wanted, strict=True)], missing - share * sum(wanted)


def _cells(one: Sequence[float], other: Sequence[float]) -> int:
    """Return in how many cells either silo has somebody."""
    return sum(a > 0 or b > 0 for a, b in zip(one, other, strict=True))


def _sampling(one: Sequence[float], other: Sequence[float], parts: int) -> float:
    """Return the divergence that sampling alone explains."""
    return (_cells(one, other) - 1) * (parts / sum(one) + parts / sum(other)) / (8 * math.log(2))


def _noise(counts: Sequence[float], parts: int, epsilon: float | None) -> float:
    """Return the divergence that one silo's noise explains."""
    if epsilon is None:
        return 0.0
    cells, patients = sum(count > 0 for count in counts), sum(counts) / parts
    return 2 * (len(TABLES) / epsilon) ** 2 * cells**2 / patients**2 / (8 * math.log(2))
