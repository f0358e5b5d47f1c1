"""How alike views of different patients are, and of the same: what a silo estimated when it published its index.

Two measures. *Similarity* is the cosine itself. *Standing* says how far a similarity stands out from this query's
similarities to views drawn at random from the gallery, in their standard deviations: a query that is turned away from its
image lowers every similarity, but what stood out still stands out.
"""

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PERCENTS", "Likeness"]

PERCENTS = (0.0, 1.0, 5.0, *map(float, range(10, 100, 10)), 95.0, 98.0, 99.0, 99.5, 99.9, 100.0)
"""Of random pairs of different patients, so many percent are at most so much alike."""
_LEAST_PERCENT = 95.0

_Curve = Annotated[tuple[float, ...], Field(min_length=len(PERCENTS), max_length=len(PERCENTS))]


class Likeness(BaseModel):
    """Estimated from one gallery with one encoder; the part of a generation's manifest that the release policy reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patients: int = Field(ge=0)
    """Patients with several cases that `evidence` was estimated from."""
    evidence: float | None = Field(default=None, allow_inf_nan=False)
    """The standing from which on a view is likelier of the same patient than of another; None with too few patients."""
    standing: _Curve
    """The standing of random pairs, at `PERCENTS`."""
    similar: _Curve
    """The similarity of random pairs, at `PERCENTS`."""

    @property
    def limit(self) -> float:
        """The standing from which on a case may be of the query's own patient.

        That of the evidence, but never so low that more than one random pair in twenty lies above it: below that, what is
        kept back says little of the patient and much of the finding (docs/decisions/same-patient-guard.md).
        """
        least = self.standing[PERCENTS.index(_LEAST_PERCENT)]
        return least if self.evidence is None else max(least, self.evidence)

    @property
    def similarity_limit(self) -> float:
        """The similarity that as many random pairs reach as stand out by `limit`: for those who know no query."""
        return _at(self.limit, self.standing, self.similar)

    def closer_than(self, similarity: float) -> float:
        """Return the percentage of random pairs that are less alike than this."""
        return _at(similarity, self.similar, PERCENTS)

    def similarity_at(self, percent: float) -> float:
        """Return the similarity that so many percent of random pairs have at most; at 0 it is that of all cases, -1."""
        return -1.0 if percent <= 0 else _at(percent, PERCENTS, self.similar)


def _at(value: float, rising: tuple[float, ...], wanted: tuple[float, ...]) -> float:
    """Return the value of `wanted` where the curve `rising` reaches `value`; at its ends, those of `wanted`."""
    if value <= rising[0]:
        return wanted[0]
    for (low, high), (first, last) in zip(pairwise(rising), pairwise(wanted), strict=True):
        if value < high:
            return first + (last - first) * (value - low) / (high - low)
    return wanted[-1]
