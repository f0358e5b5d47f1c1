"""A silo's count for one query: every view is compared, patients are counted, and the policy says what is told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Embedding, Finding, PatientKey, View
from silo_app.config import ReleaseSettings
from silo_app.index.gallery import GalleryIndex, Hit, exact_scores
from silo_app.policy.counts import ALL, count_subject, counted, numbers_of, told_counts
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import Candidate, hits_allowed
from silo_app.search.answer import CardLookup, Found, Look, RowsWhere, SearchableCases, are_of, around, bound_of, unfit
from silo_app.search.counts.messages import CountAnswer, CountRequest
from silo_app.search.messages import Refusal
from silo_app.search.together import reading_ahead

__all__ = ["Counting", "alike_cases", "cost_of"]

_BLOCK = 8192
_DOUBT = 1e-3
"""By how much a float32 sum over half-precision unit vectors can be wrong, and more."""
_CARDS = 2000


class _OutOfTime(Exception):
    """The budget is spent before all views are compared."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What a silo counts with: its rules, its catalogue as it is now, its secret, and a look at what was found."""

    silo: str
    settings: ReleaseSettings
    views_of: Callable[[Sequence[CaseId]], CardLookup]
    """A look-up of cards that has read these cases' at once."""
    rows_where: RowsWhere
    look: Look
    secret: bytes

    def answer(
        self, request: CountRequest, gallery: SearchableCases | None, left_s: Callable[[], float]
    ) -> CountAnswer | Refusal:
        """Return what the silo tells; `busy` when `left_s`, the seconds that are left, come to an end."""
        code = unfit(request, gallery, self.settings)
        if code is None and not self.settings.count.answer:
            code = RefusalCode.COUNT
        if code:
            other = gallery.encoder_version if gallery and code is RefusalCode.OTHER_ENCODER else ""
            return self._refused(request, code, other)
        assert gallery is not None  # noqa: S101  (an unfit one)
        index = gallery.index
        rows = np.arange(index.views)
        if request.filters:
            rows = self.rows_where(request.filters, index)
            if not are_of(self.settings.min_gallery, index, rows):
                return self._refused(request, RefusalCode.GALLERY_TOO_SMALL)
        nearest = self._nearest(request, index, rows)
        if code := self.look(Found([candidate.case for candidate in nearest], self._about(request, gallery), 0)):
            return self._refused(request, code)
        try:
            views = list(self._views(request, gallery, rows, left_s))
        except _OutOfTime:
            return self._refused(request, RefusalCode.BUSY)
        return self._told(request, gallery, views, nearest[0].view.patient if nearest else PatientKey(""))

    def _nearest(self, request: CountRequest, index: GalleryIndex, rows: NDArray[np.int64]) -> list[Candidate]:
        """Return the nearest cases, as many as a search might show: so that it is seen who finds a planted one."""
        wanted = hits_allowed(self.settings, self.settings.max_hits)
        query = request.embedding
        hits = index.search_among(query, wanted, rows) if request.filters else index.search(query, wanted)
        return [candidate for candidate in self._held(hits) if request.filters.holds(candidate.view)]

    def _about(self, request: CountRequest, gallery: SearchableCases) -> CaseId | None:
        """Return the nearest case that a search would not keep back (`Found.about`)."""
        bound = bound_of(request, gallery.judge, silo=self.silo, settings=self.settings)
        index = reading_ahead(gallery.index, self.views_of)
        return around(request, index, self.views_of(()), self.settings, 1, bound)[1].nearest

    def _held(self, hits: Sequence[Hit]) -> list[Candidate]:
        view_of = self.views_of([hit.case for hit in hits])
        return [Candidate(hit.case, hit.score, view) for hit in hits if (view := view_of(hit.case)) is not None]

    def _views(
        self, request: CountRequest, gallery: SearchableCases, rows: NDArray[np.int64], left_s: Callable[[], float]
    ) -> Iterator[View]:
        """Yield the cards of the cases that are alike enough and that the catalogue still holds."""
        alike = gallery.judge.likeness.similarity_at(request.alike)
        threshold = max(request.similarity, alike, self.settings.min_similarity)
        cases = list(dict.fromkeys(alike_cases(gallery.index, request.embedding, rows, threshold, left_s)))
        for start in range(0, len(cases), _CARDS):
            _require_time(left_s)
            part = cases[start : start + _CARDS]
            view_of = self.views_of(part)
            yield from (view for case in part if (view := view_of(case)) is not None and request.filters.holds(view))

    def _told(
        self, request: CountRequest, gallery: SearchableCases, views: Sequence[View], nearest: PatientKey
    ) -> CountAnswer:
        subject = count_subject(
            nearest,
            generation=gallery.generation,
            alike=request.alike,
            similarity=request.similarity,
            filters=request.filters,
        )
        exact = counted(self.settings, views, by_finding=request.by_finding)
        told = told_counts(self.settings, exact, secret=self.secret, subject=subject, most=gallery.index.cases)
        return CountAnswer(
            query_id=request.query_id,
            silo=self.silo,
            encoder_version=gallery.encoder_version,
            generation=gallery.generation,
            indexed=gallery.index.cases,
            min_count=self.settings.count.min_count,
            epsilon=self.settings.count.epsilon,
            patients=told[ALL],
            findings={finding: told[finding.value] for finding in Finding if finding.value in told},
        )

    def _refused(self, request: CountRequest, code: RefusalCode, encoder_version: str = "") -> Refusal:
        return Refusal.of(self.silo, code, query_id=request.query_id, encoder_version=encoder_version)


def cost_of(settings: ReleaseSettings, request: CountRequest) -> int:
    """Return how many numbers a count asks for."""
    return numbers_of(settings, by_finding=request.by_finding)


def alike_cases(
    index: GalleryIndex,
    query: Embedding,
    rows: NDArray[np.int64],
    threshold: float,
    left_s: Callable[[], float] = lambda: 1.0,
) -> Iterator[CaseId]:
    """Yield the cases of those rows, int64 (n,), whose view is at least so similar, by `exact_scores`.

    A case comes once for each such view. Raises `_OutOfTime`.
    """
    for start in range(0, len(rows), _BLOCK):
        _require_time(left_s)
        block = rows[start : start + _BLOCK]
        vectors = index.vectors(block)  # (b, D)
        near = np.flatnonzero(vectors @ query >= threshold - _DOUBT)
        exact = exact_scores(vectors[near], query)
        yield from (index.case_of(int(row)) for row in block[near[exact >= threshold]])


def _require_time(left_s: Callable[[], float]) -> None:
    if left_s() <= 0:
        raise _OutOfTime
