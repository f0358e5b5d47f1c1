"""How alike views of different patients are, and how near those of the same: what a silo estimated of its own index.

Nearness is a share: of a gallery's views, how many are as similar to the query. A similarity itself says little: with some
encoders all images are alike, with others all of one finding, and a query that is turned away from its image lowers every
similarity, but what was nearest stays near.
"""

from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["PERCENTS", "Likeness"]

PERCENTS = (0.0, 1.0, 5.0, *map(float, range(10, 100, 10)), 95.0, 98.0, 99.0, 99.5, 99.9, 100.0)
"""Of random pairs of different patients, so many percent are at most so much alike."""
_MOST = 0.1
"""Of a gallery, that is kept back of any query at most: beyond it, hardly anything similar would be left."""

_Curve = Annotated[tuple[float, ...], Field(min_length=len(PERCENTS), max_length=len(PERCENTS))]


class Likeness(BaseModel):
    """Estimated from one gallery with one encoder; the part of a generation's manifest that the release policy reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patients: int = Field(ge=0)
    """Patients with several cases that `evidence` was estimated from."""
    evidence: float | None = Field(default=None, ge=0, le=1)
    """The nearest share of a gallery in which a view is likelier of the query's own patient than anywhere; None with too few
    patients."""
    similar: _Curve
    """The similarity of random pairs, at `PERCENTS`."""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, content: Any) -> Any:
        """Know nothing of patients by what generations of before 2026-11-29 estimated: another measure, of that name too."""
        if isinstance(content, dict) and "standing" in content:
            return {"patients": 0, "similar": content.get("similar")}
        return content

    @property
    def share(self) -> float:
        """The nearest share of a gallery that may be of the query's own patient, a tenth at most.

        That of the evidence; what lies between it and a tenth says little of the patient
        (docs/decisions/same-patient-guard.md).
        """
        return _MOST if self.evidence is None else min(_MOST, self.evidence)

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
