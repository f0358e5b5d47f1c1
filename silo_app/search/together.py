"""Requests that came together: one look at index and catalogue for all of them, and replies that fit into one parcel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Embedding
from silo_app.config import ReleaseSettings
from silo_app.index.gallery import Enough, GalleryIndex, Hit
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import candidates_beyond, candidates_for, refusal
from silo_app.search.answer import CardLookup, SearchableCases, bound_of
from silo_app.search.current import OpenCatalogue
from silo_app.search.messages import SearchRequest
from silo_app.search.parcels import MAX_PARCEL_BYTES, Content
from silo_app.search.room import left_out

__all__ = ["Together", "fitting", "reading_ahead", "roomy", "search_together"]

_OF_A_CONTENT = 32
"""Bytes that a content has beside its body, at most."""


@dataclass(frozen=True, slots=True)
class Together:
    """What was found for requests that came together, as `answer` asks for it."""

    gallery: SearchableCases
    view_of: CardLookup


def search_together(
    gallery: SearchableCases,
    requests: Sequence[SearchRequest],
    settings: ReleaseSettings,
    catalogue: OpenCatalogue,
    *,
    silo: str,
) -> Together:
    """Search for every request that this gallery will answer, and look up the cards of all hits at once.

    Those that are narrowed too: what is kept back of them does not depend on what they are narrowed to.
    """
    index, found = gallery.index, dict[bytes, tuple[int, list[Hit]]]()
    sense = gallery.judge.remembering()
    fit = [
        request
        for request in requests
        if request.encoder_version == gallery.encoder_version
        and len(request.embedding) == index.dimension
        and _refusal(settings, request, index.cases) is None
    ]
    if fit:
        bounds = [bound_of(request, sense, silo=silo, settings=settings) for request in fit]
        each = list(zip(fit, bounds, strict=True))
        counts = [candidates_for(settings, one.k, bound.alike if bound else None) for one, bound in each]
        enough = [Enough(bound.limit, candidates_beyond(settings, one.k)) if bound else None for one, bound in each]
        hits = index.search_many(np.stack([request.embedding for request in fit]), counts, enough)
        for request, count, one in zip(fit, counts, hits, strict=True):
            at_hand = len(one) if 0 < len(one) < min(count, index.cases) else count
            if at_hand > found.get(request.vector, (0, []))[0]:  # asked twice: who wants more decides
                found[request.vector] = (at_hand, one)
    ahead = map(itemgetter(0), chain.from_iterable(hits for _, hits in found.values()))
    view_of = catalogue.as_it_is(ahead)
    searched = _Searched(index, catalogue.as_it_is, found)
    return Together(replace(gallery, index=searched, sense=sense, at_hand=searched.at_hand), view_of)


def reading_ahead(index: GalleryIndex, ahead: Callable[[Sequence[CaseId]], object]) -> GalleryIndex:
    """Return the same index; of what is found by `search`, `ahead` reads the cards at once."""
    return _Searched(index, ahead)


def _refusal(settings: ReleaseSettings, request: SearchRequest, cases: int) -> RefusalCode | None:
    return refusal(settings, asker=request.asker, purpose=request.purpose, cases=cases, filters=request.filters)


class _Searched:
    """A `GalleryIndex` that knows what was found for some queries; whatever else is asked, the gallery says.

    Of what that finds, `ahead` reads the cards at once: one by one, many would take longer than the search.
    """

    def __init__(
        self,
        index: GalleryIndex,
        ahead: Callable[[Sequence[CaseId]], object],
        found: Mapping[bytes, tuple[int, list[Hit]]] = MappingProxyType({}),
    ) -> None:
        self._index = index
        self._ahead = ahead
        self._found = found

    @property
    def dimension(self) -> int:
        return self._index.dimension

    @property
    def views(self) -> int:
        return self._index.views

    @property
    def cases(self) -> int:
        return self._index.cases

    def at_hand(self, query: Embedding) -> int | None:
        return self._known(query)[0] or None

    def _known(self, query: Embedding) -> tuple[int, list[Hit]]:
        return self._found.get(query.astype("<f4").tobytes(), (0, []))

    def search(self, query: Embedding, k: int) -> list[Hit]:
        count, hits = self._known(query)
        if 0 < k <= count:
            return hits[:k]
        hits = self._index.search(query, k)
        self._ahead([hit.case for hit in hits])
        return hits

    def search_many(
        self, queries: NDArray[np.float32], counts: Sequence[int], enough: Sequence[Enough | None] = ()
    ) -> list[list[Hit]]:
        return self._index.search_many(queries, counts, enough)

    def search_among(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        return self._index.search_among(query, k, rows)

    @property
    def row_cases(self) -> NDArray[np.uint8]:
        return self._index.row_cases

    def case_of(self, row: int) -> CaseId:
        return self._index.case_of(row)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._index.vectors(rows)


def fitting(contents: Sequence[Content], replies: Sequence[bytes]) -> list[tuple[Content, bytes]]:
    """Return contents with their replies, without the largest where all are more than a parcel holds."""
    out = left_out([len(reply) + _OF_A_CONTENT for reply in replies], MAX_PARCEL_BYTES - 4096)
    return [pair for place, pair in enumerate(zip(contents, replies, strict=True)) if place not in out]


def roomy(replies: Sequence[bytes], most: int) -> tuple[bytes, ...]:
    """Return replies, the largest ones empty where all together are more than `most` bytes."""
    out = left_out([len(reply) for reply in replies], most - _OF_A_CONTENT * (len(replies) + 1))
    return tuple(b"" if place in out else reply for place, reply in enumerate(replies))
