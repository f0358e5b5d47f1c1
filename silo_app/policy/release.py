"""What of a case may leave the silo: pure rules over its `ReleaseSettings`; a stricter setting never lets out more.

An allow-list and not a scrubbed record: a card is built from nothing, field by field, so what is not named stays.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from silo_app.cases import CaseId, Finding, Sex, View, ViewPosition, age_band
from silo_app.config import ReleaseSettings
from silo_app.policy.refusal import RefusalCode

__all__ = ["Candidate", "Card", "Released", "card_of", "hits_allowed", "refusal", "release"]

# Members of an enumeration arrive as their plain text: the one place where a strict message is read leniently.
_Word = Field(strict=False)


class Card(BaseModel):
    """The fields of a case that a silo releases; None or empty is what it does not release or does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    position: Annotated[ViewPosition, _Word] | None = None
    sex: Annotated[Sex, _Word] | None = None
    age_band: str | None = Field(default=None, pattern=r"^(\d0-\d9|0-9|90\+)?$")
    study_year: int | None = Field(default=None, ge=1900, le=2200)
    findings: dict[Annotated[Finding, _Word], bool] = Field(default_factory=dict)
    """True present, False absent; what is not in it is unknown."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A case that the index found, with what the silo knows about it."""

    case: CaseId
    score: float
    view: View


@dataclass(frozen=True, slots=True)
class Released:
    """What of a candidate leaves the silo."""

    case: CaseId
    score: float
    card: Card


def refusal(settings: ReleaseSettings, *, asker: str, purpose: str, cases: int) -> RefusalCode | None:
    """Return why the policy refuses a query over a gallery of `cases` cases, or None."""
    if not settings.answer_queries:
        return RefusalCode.NOT_ANSWERING
    if settings.askers and asker not in settings.askers:
        return RefusalCode.ASKER
    if purpose not in settings.purposes:
        return RefusalCode.PURPOSE
    if cases < settings.min_gallery:
        return RefusalCode.GALLERY_TOO_SMALL
    return None


def hits_allowed(settings: ReleaseSettings, k: int) -> int:
    """Return how many hits a query for `k` may have."""
    return min(k, settings.max_hits)


def release(settings: ReleaseSettings, k: int, ranked: Iterable[Candidate]) -> list[Released]:
    """Return what leaves the silo of candidates that are ranked best first."""
    similar = (candidate for candidate in ranked if candidate.score >= settings.min_similarity)
    return [
        Released(case=candidate.case, score=candidate.score, card=card_of(settings, candidate.view))
        for candidate in itertools.islice(similar, hits_allowed(settings, k))
    ]


def card_of(settings: ReleaseSettings, view: View) -> Card:
    """Return the card of a case: the allowed fields of one of its views."""
    allowed = settings.fields
    return Card(
        position=view.position if "position" in allowed else None,
        sex=view.sex if "sex" in allowed else None,
        age_band=age_band(view.age) if "age_band" in allowed else None,
        study_year=view.study_year if "study_year" in allowed else None,
        findings=dict(view.findings) if "findings" in allowed else {},
    )
