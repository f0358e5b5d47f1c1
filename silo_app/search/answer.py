"""A silo's answer to a verified request: the encoder must be the same, the policy decides, the index ranks. No I/O."""

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import count, repeat
from operator import is_
from typing import cast

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CASE_BYTES, CaseId, Embedding, EncoderVersion, PatientKey, View
from silo_app.config import ReleaseSettings
from silo_app.hex_rows import hex_rows, row_values
from silo_app.index.gallery import GalleryIndex, Hit
from silo_app.index.likeness import Bound, Sense, sense_of
from silo_app.policy.filters import Filters
from silo_app.policy.levels import levels_of
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import (
    Candidate,
    Release,
    candidates_for,
    hits_allowed,
    refusal,
    release,
    shows_same_patient,
)
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import Refusal, ReleasedHit, SearchRequest, SiloAnswer

__all__ = [
    "CardLookup",
    "Found",
    "Look",
    "RowsWhere",
    "SearchableCases",
    "answer",
    "are_of",
    "around",
    "bound_of",
    "told",
    "unfit",
]

RowsWhere = Callable[[Filters, GalleryIndex], NDArray[np.int64]]
"""The rows of a gallery whose cases the filters hold for, as the catalogue was some seconds ago; int64 (n,), ascending."""
CardLookup = Callable[[CaseId], View | None]
"""What the catalogue knows of a case now; None once the study was recalled."""


def _nobody_knows(_query: Embedding) -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class SearchableCases:
    """One open generation: an index, what it was made with, and how alike its views are."""

    generation: str
    encoder_version: EncoderVersion
    index: GalleryIndex
    sense: Sense | None = None
    """None is estimated anew with every query: for tests."""
    serial: int = field(default_factory=count(1).__next__, compare=False)
    """Another for each that was opened: an index that was removed and built again gives a generation an old name."""
    at_hand: Callable[[Embedding], int | None] = field(default=_nobody_knows, compare=False)
    """How many of the cases nearest to a query were found already, if that is likely enough."""

    @property
    def judge(self) -> Sense:
        """What judges how alike its views are, estimated anew where it has none."""
        return self.sense or sense_of(self.index, None)


@dataclass(frozen=True, slots=True)
class Found:
    """What the rules decided on, for the silo itself: nothing of it travels."""

    cases: Sequence[CaseId]
    """As many of the nearest as may be released, before anything is kept back, and all that are released."""
    about: CaseId | None
    """The nearest case that is not kept back, whatever the question is narrowed to. A refusal may depend on it: whoever is
    kept back must not be seen by a refusal either."""
    kept_back: int
    """Patients, exactly."""


Look = Callable[[Found], RefusalCode | None]
"""The silo's own look at what was found, before anything is released: it may still refuse."""


def _unseen(_found: Found) -> None:
    return None


def _nothing(_filters: Filters, _index: GalleryIndex) -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def answer(
    request: SearchRequest,
    gallery: SearchableCases | None,
    *,
    silo: str,
    view_of: CardLookup,
    settings: ReleaseSettings,
    look: Look = _unseen,
    rows_where: RowsWhere = _nothing,
) -> SiloAnswer | Refusal:
    """Return what silo `silo` says to `request`; `gallery` is None where nothing was indexed yet."""

    def refused(code: RefusalCode, encoder_version: str = "") -> Refusal:
        return Refusal.of(silo, code, query_id=request.query_id, encoder_version=encoder_version)

    if code := unfit(request, gallery, settings):
        return refused(code, gallery.encoder_version if gallery and code is RefusalCode.OTHER_ENCODER else "")
    assert gallery is not None  # noqa: S101  (an unfit one)
    rows = rows_where(request.filters, gallery.index) if request.filters else None
    if rows is not None and not are_of(settings.min_gallery, gallery.index, rows):
        return refused(RefusalCode.GALLERY_TOO_SMALL)
    sense = gallery.judge
    bound = bound_of(request, sense, silo=silo, settings=settings)
    look_around = partial(around, request, gallery.index, view_of, settings, request.k, bound)
    ranked, released = look_around(first=gallery.at_hand(request.embedding))
    about = released.nearest
    if rows is not None:
        kept_back = [candidate for candidate in ranked if candidate.view.patient in released.withheld]
        rows = _without(rows, gallery.index, [candidate.case for candidate in kept_back])
        ranked, released = look_around(rows=rows, also=released.withheld, known=kept_back)
    first = [candidate.case for candidate in ranked[: hits_allowed(settings, request.k)]]
    seen = list(dict.fromkeys([*first, *(hit.case for hit in released.hits)]))
    if code := look(Found(seen, about, len(released.withheld))):
        return refused(code)
    if not released.enough:
        return refused(RefusalCode.TOO_FEW_SIMILAR)
    return SiloAnswer(
        query_id=request.query_id,
        silo=silo,
        encoder_version=gallery.encoder_version,
        generation=gallery.generation,
        indexed=gallery.index.cases,
        hits=tuple(ReleasedHit(case=hit.case, score=hit.score, card=hit.card) for hit in released.hits),
        withheld=0 if bound is None else told(settings, released),
        levels=levels_of(sense.likeness, views=gallery.index.views, least=settings.min_gallery),
    )


def bound_of(request: SearchRequest | CountRequest, sense: Sense, *, silo: str, settings: ReleaseSettings) -> Bound | None:
    """Return from where on a case may be of the query's own patient; None where that patient is shown."""
    is_shown = request.asker == silo or shows_same_patient(settings, request.purpose)
    return None if is_shown else sense.bound_for(request.embedding)


def around(
    request: SearchRequest | CountRequest,
    index: GalleryIndex,
    view_of: CardLookup,
    settings: ReleaseSettings,
    k: int,
    bound: Bound | None,
    *,
    rows: NDArray[np.int64] | None = None,
    also: AbstractSet[PatientKey] = frozenset(),
    known: Sequence[Candidate] = (),
    first: int | None = None,
) -> tuple[list[Candidate], Release]:
    """Return the nearest cases, best first, as many as the rules have to look at, and what they release of them.

    Of those rows, for which the filters hold, or of all; held by the catalogue still. `also` is kept back, too. `known` are
    cases that the same query, not narrowed, has found, and that have none of the rows. At `first` so many are looked at,
    or as many as are likely enough.
    """
    limit, alike = (bound.limit, bound.alike) if bound else (None, None)
    wanted = first or candidates_for(settings, k, alike if rows is None else None)
    query = request.embedding
    while True:
        hits = index.search(query, wanted) if rows is None else index.search_among(query, wanted, rows)
        is_all = len(hits) < wanted
        ranked = _held(hits, view_of)
        if rows is not None:  # a case may have changed since its row was chosen
            far = -math.inf if is_all else hits[-1].score  # what is known behind it has others before it
            found = (*(one for one in known if one.score >= far), *ranked)
            ranked = sorted((one for one in found if request.filters.holds(one.view)), key=_order)
        released = release(settings, k, ranked, limit=limit, also=also)
        if is_all or released.final:
            return ranked, released
        wanted *= 2


def told(settings: ReleaseSettings, released: Release) -> int | None:
    """Return how many patients the asker is told were kept back; None says neither how many nor whether there were any."""
    return len(released.withheld) if settings.same_patient == "coarsen" else None


def unfit(
    request: SearchRequest | CountRequest, gallery: SearchableCases | None, settings: ReleaseSettings
) -> RefusalCode | None:
    """Return why this gallery is not searched for this request, before anything is looked at."""
    cases = gallery.index.cases if gallery else settings.min_gallery
    code = refusal(settings, asker=request.asker, purpose=request.purpose, cases=cases, filters=request.filters)
    if code or gallery is None:
        return code or RefusalCode.NOT_READY
    fits = request.encoder_version == gallery.encoder_version and len(request.embedding) == gallery.index.dimension
    return None if fits else RefusalCode.OTHER_ENCODER


def are_of(cases: int, index: GalleryIndex, rows: NDArray[np.int64]) -> bool:
    """Return whether rows are of at least so many cases."""
    seen: set[CaseId] = set()
    for row in rows:
        seen.add(index.case_of(int(row)))
        if len(seen) >= cases:
            return True
    return False


def _without(rows: NDArray[np.int64], index: GalleryIndex, cases: Sequence[CaseId]) -> NDArray[np.int64]:
    """Return those of the rows, ascending int64 (n,), that are of none of these cases.

    Who is kept back may be thousands, of whom a filter holds for most: to search through them once more takes longer than
    everything else.
    """
    if not cases:
        return rows
    named = hex_rows(cases, CASE_BYTES)
    ends = np.unique(_ends(named))  # (c,): compared at a tenth of the cost of whole names
    found = _ends(index.row_cases)[rows]  # (n,)
    maybe = np.flatnonzero(ends[np.minimum(np.searchsorted(ends, found), len(ends) - 1)] == found)
    are = np.isin(row_values(index.row_cases[rows[maybe]]), row_values(named))
    return np.delete(rows, maybe[are])


def _ends(cases: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the last half of each case, uint8 (n, 16), as a number, (n,)."""
    return np.ascontiguousarray(cases).view(np.uint64)[:, 1]


def _order(candidate: Candidate) -> tuple[float, CaseId]:
    return -candidate.score, candidate.case


def _held(hits: Sequence[Hit], view_of: CardLookup) -> list[Candidate]:
    """Return the hits whose cases the catalogue still holds."""
    if not hits:
        return []
    cases, scores = zip(*hits, strict=True)  # by columns: this is done for every case that the rules look at
    views = list(map(view_of, cases))
    if not any(map(is_, views, repeat(None))):
        return Candidate.all_of(zip(cases, scores, cast("list[View]", views), strict=True))
    found = zip(cases, scores, views, strict=True)
    return [Candidate(case, score, view) for case, score, view in found if view is not None]
