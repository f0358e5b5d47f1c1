"""What of a case may leave the silo: pure rules over its `ReleaseSettings`; a stricter setting never lets out more.

An allow-list and not a scrubbed record: a card is built from nothing, field by field, so what is not named stays.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import compress, islice, repeat
from operator import attrgetter
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from silo_app.cases import CaseId, Finding, PatientKey, Sex, View, ViewPosition, age_band
from silo_app.config import ReleaseSettings
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode

__all__ = [
    "MOST_KEPT_BACK",
    "Candidate",
    "Card",
    "Release",
    "Released",
    "barred",
    "candidates_beyond",
    "candidates_for",
    "card_of",
    "hits_allowed",
    "refusal",
    "release",
    "shows_same_patient",
    "shows_thumbnail",
]

MOST_KEPT_BACK = 4096
"""Of the nearest cases no more are kept back: nobody waits for a search through half a gallery. Behind so
many that all do, one patient more or less moves the end of what is kept back."""
_BEYOND = 16
"""So many cases more than can be shown are looked at, for the number of their patients."""
_MORE = 1.6
_AND_MORE = 8
"""More than are expected to be as near may be."""
_patient_of = attrgetter("view.patient")

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


class Candidate(NamedTuple):  # every query makes many: a dataclass would take three times as long
    """A case that the index found, with what the silo knows about it."""

    case: CaseId
    score: float
    view: View

    @classmethod
    def all_of(cls, fields: Iterable[tuple[CaseId, float, View]]) -> "list[Candidate]":
        """Return many candidates, each of its fields, at a third of the cost of making each."""
        return list(map(tuple.__new__, repeat(cls), fields))


@dataclass(frozen=True, slots=True)
class Released:
    """What of a candidate leaves the silo."""

    case: CaseId
    score: float
    card: Card


@dataclass(frozen=True, slots=True)
class Release:
    """What leaves the silo for one query."""

    hits: tuple[Released, ...]
    withheld: frozenset[PatientKey] = frozenset()
    """Patients whose cases were kept back: for the silo itself."""
    nearest: CaseId | None = None
    """The nearest case that is not kept back, whether there are hits or not: it is the same without those who are."""
    enough: bool = True
    """Whether there are cases of as many patients as the policy wants; without, there are no hits."""
    final: bool = True
    """Whether candidates that come behind those that were given change nothing."""


def refusal(
    settings: ReleaseSettings, *, asker: str, purpose: str, cases: int, filters: Filters | None = None
) -> RefusalCode | None:
    """Return why the policy refuses a query over a gallery of `cases` cases, or None.

    A field that is not released is not asked about either: who is found when it is filtered by would tell it.
    """
    if code := barred(settings, asker=asker, purpose=purpose):
        return code
    if filters and not filters.fields <= set(settings.fields):
        return RefusalCode.FILTER
    if cases < settings.min_gallery:
        return RefusalCode.GALLERY_TOO_SMALL
    return None


def barred(settings: ReleaseSettings, *, asker: str, purpose: str) -> RefusalCode | None:
    """Return why the policy refuses every question of this asker for this purpose, or None."""
    if not settings.answer_queries:
        return RefusalCode.NOT_ANSWERING
    if settings.askers and asker not in settings.askers:
        return RefusalCode.ASKER
    return None if purpose in settings.purposes else RefusalCode.PURPOSE


def hits_allowed(settings: ReleaseSettings, k: int) -> int:
    """Return how many hits a query for `k` may have."""
    return min(k, settings.max_hits)


def candidates_for(settings: ReleaseSettings, k: int, alike: float | None) -> int:
    """Return how many of the nearest cases the rules likely have to look at: `alike` ones are expected to be kept back.

    None is for a query that keeps nobody back. Whether they were enough says `Release.final`.
    """
    kept_back = 0 if alike is None else min(MOST_KEPT_BACK, math.ceil(_MORE * alike) + _AND_MORE)
    return max(hits_allowed(settings, k), settings.min_cases) + _BEYOND + kept_back


def candidates_beyond(settings: ReleaseSettings, k: int) -> int:
    """Return how many cases the rules likely have to look at behind those that are as near as the query's own patient."""
    return max(hits_allowed(settings, k), settings.min_cases) + 2 * _BEYOND  # some are of patients who are kept back


def shows_same_patient(settings: ReleaseSettings, purpose: str) -> bool:
    """Return whether the silo shows cases of the query's own patient to whoever asks for this purpose."""
    return settings.same_patient == "show" and purpose in settings.same_patient_purposes


def release(
    settings: ReleaseSettings,
    k: int,
    ranked: Sequence[Candidate],
    *,
    limit: float | None,
    also: AbstractSet[PatientKey] = frozenset(),
) -> Release:
    """Return what leaves the silo of candidates that are ranked best first.

    `limit` is the similarity from which on a case may be of the query's own patient; None where that is shown. Whoever has
    one such case is kept back with all cases, and the next ones take their place. So is whoever is in `also`: a query that
    is narrowed must not show the other cases of a patient whom the same query, not narrowed, keeps back. As many of the
    others are looked at, whoever is kept back: so nothing that is said depends on them.
    """
    similar, most = _from(ranked, settings.min_similarity), max(hits_allowed(settings, k), settings.min_cases) + _BEYOND
    others, withheld = _divided(similar, most, limit, also)
    is_named_whole = limit is None or len(ranked) >= MOST_KEPT_BACK or (len(ranked) > 0 and ranked[-1].score < limit)
    final = len(similar) < len(ranked) or (is_named_whole and len(others) == most)
    nearest = others[0].case if others else None
    if not _are_of(settings.min_cases, others):
        return Release((), withheld, nearest, enough=False, final=final)
    shown = [
        Released(case=candidate.case, score=candidate.score, card=card_of(settings, candidate.view))
        for candidate in others[: hits_allowed(settings, k)]
    ]
    return Release(tuple(shown), withheld, nearest, final=final)


def _from(ranked: Sequence[Candidate], similarity: float) -> Sequence[Candidate]:
    """Return those that are at least so similar, of candidates that are ranked best first."""
    return ranked[: bisect_right(ranked, -similarity, key=lambda candidate: -candidate.score)]


def _divided(
    similar: Sequence[Candidate], count: int, limit: float | None, also: AbstractSet[PatientKey]
) -> tuple[Sequence[Candidate], frozenset[PatientKey]]:
    """Return the best `count` cases of nobody who is kept back, and who is, of those who have a case before the last."""
    near = 0 if limit is None else len(_from(similar[:MOST_KEPT_BACK], limit))
    if not near and not also:
        return similar[:count], frozenset()
    patients = list(map(_patient_of, similar))  # by columns: this is done for every case that the rules look at
    named = frozenset(patients[:near]).union(also)
    shown = [patient not in named for patient in patients]
    places = list(islice(compress(range(len(shown)), shown), count))
    seen = patients[: places[-1]] if len(places) == count else patients
    return [similar[place] for place in places], named.intersection(seen)


def _are_of(patients: int, candidates: Sequence[Candidate]) -> bool:
    """Return whether candidates are of at least so many patients; looks at no more of them than it must."""
    seen: set[PatientKey] = set()
    for candidate in candidates:
        if len(seen) >= patients:
            break
        seen.add(candidate.view.patient)
    return len(seen) >= patients


def shows_thumbnail(settings: ReleaseSettings, view: View) -> bool:
    """Return whether the silo shows a picture of this view: one that was looked at, and seems to name nobody."""
    return "thumbnail" in settings.fields and view.burned_in is False


def card_of(settings: ReleaseSettings, view: View) -> Card:
    """Return the card of a case: the allowed fields of one of its views."""
    allowed = settings.fields
    return _card(
        view.position if "position" in allowed else None,
        view.sex if "sex" in allowed else None,
        age_band(view.age) if "age_band" in allowed else None,
        view.study_year if "study_year" in allowed else None,
        tuple(view.findings.items()) if "findings" in allowed else (),
    )


@functools.lru_cache(maxsize=4096)
def _card(
    position: ViewPosition | None,
    sex: Sex | None,
    band: str | None,
    study_year: int | None,
    findings: tuple[tuple[Finding, bool], ...],
) -> Card:
    """Return a card of these words; many cases have the same, and every query shows some of them."""
    return Card(position=position, sex=sex, age_band=band, study_year=study_year, findings=dict(findings))
