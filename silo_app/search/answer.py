"""A silo's answer to a verified request: the encoder must be the same, the policy decides, the index ranks. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, EncoderVersion, View
from silo_app.config import ReleaseSettings
from silo_app.index.gallery import GalleryIndex, Hit
from silo_app.index.likeness import Sense, sense_of
from silo_app.policy.filters import Filters
from silo_app.policy.levels import levels_of
from silo_app.policy.noise import noisy_count
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

__all__ = ["CardLookup", "Found", "Guarded", "Look", "RowsWhere", "SearchableCases", "answer", "are_of", "told", "unfit"]

RowsWhere = Callable[[Filters, GalleryIndex], NDArray[np.int64]]
"""The rows of a gallery whose cases the filters hold for, as the catalogue was a moment ago; int64 (n,), ascending."""
CardLookup = Callable[[CaseId], View | None]
"""What the catalogue knows of a case now; None once the study was recalled."""


@dataclass(frozen=True, slots=True)
class SearchableCases:
    """One open generation: an index, what it was made with, and how alike its views are."""

    generation: str
    encoder_version: EncoderVersion
    index: GalleryIndex
    sense: Sense | None = None
    """None is estimated anew with every query: for tests."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the rules decided on, for the silo itself: nothing of it travels."""

    nearest: tuple[Candidate, ...]
    """As many of the nearest cases as may be released, before anything is kept back."""
    kept_back: int
    """Patients, exactly."""


Look = Callable[[Found], RefusalCode | None]
"""The silo's own look at what was found, before anything is released: it may still refuse."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a silo adds to its policy: a look at what was found, and the secret of its noise."""

    look: Look = field(default=lambda _found: None)
    secret: bytes = b""


def _nothing(_filters: Filters, _index: GalleryIndex) -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def answer(
    request: SearchRequest,
    gallery: SearchableCases | None,
    *,
    silo: str,
    view_of: CardLookup,
    settings: ReleaseSettings,
    guarded: Guarded | None = None,
    rows_where: RowsWhere = _nothing,
) -> SiloAnswer | Refusal:
    """Return what silo `silo` says to `request`; `gallery` is None where nothing was indexed yet."""

    def refused(code: RefusalCode, encoder_version: str = "") -> Refusal:
        return Refusal.of(silo, code, query_id=request.query_id, encoder_version=encoder_version)

    if code := unfit(request, gallery, settings):
        return refused(code, gallery.encoder_version if gallery and code is RefusalCode.OTHER_ENCODER else "")
    assert gallery is not None  # noqa: S101  (an unfit one)
    sense = gallery.sense or sense_of(gallery.index, None)
    rows = rows_where(request.filters, gallery.index) if request.filters else None
    if rows is not None and not are_of(settings.min_gallery, gallery.index, rows):
        return refused(RefusalCode.GALLERY_TOO_SMALL)
    ranked = _ranked(request, gallery.index, view_of, candidates_for(settings, request.k), rows)
    shown = request.asker == silo or shows_same_patient(settings, request.purpose)
    released = release(settings, request.k, ranked, limit=None if shown else sense.limit_for(request.embedding))
    guarded = guarded or Guarded()
    if code := guarded.look(Found(tuple(ranked[: hits_allowed(settings, request.k)]), released.patients)):
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
        withheld=0 if shown else told(settings, released, ranked, guarded.secret),
        levels=levels_of(sense.likeness, views=gallery.index.views, least=settings.min_gallery),
    )


def told(settings: ReleaseSettings, released: Release, ranked: Sequence[Candidate], secret: bytes) -> int:
    """Return how many patients the asker is told were kept back."""
    if settings.same_patient == "coarsen":
        return released.patients
    return noisy_count(released.patients, secret, ranked[0].view.patient if ranked else "")


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


def _ranked(
    request: SearchRequest,
    index: GalleryIndex,
    view_of: CardLookup,
    count: int,
    rows: NDArray[np.int64] | None,
) -> list[Candidate]:
    """Return the nearest `count` cases that the catalogue still holds, best first; asks for more where some are gone."""
    wanted = count
    while True:
        query = request.embedding
        hits = index.search(query, wanted) if rows is None else index.search_among(query, wanted, rows)
        held = _held(hits, view_of)
        if request.filters:  # a case may have changed since its row was chosen
            held = [candidate for candidate in held if request.filters.holds(candidate.view)]
        if len(held) >= count or len(hits) < wanted:
            return held[:count]
        wanted *= 2


def _held(hits: Sequence[Hit], view_of: CardLookup) -> list[Candidate]:
    """Return the hits whose cases the catalogue still holds."""
    if not hits:
        return []
    cases, scores = zip(*hits, strict=True)  # by columns: this is done for every case that the rules look at
    views = list(map(view_of, cases))
    if all(views):
        return Candidate.all_of(zip(cases, scores, cast("list[View]", views), strict=True))
    found = zip(cases, scores, views, strict=True)
    return [Candidate(case, score, view) for case, score, view in found if view is not None]
