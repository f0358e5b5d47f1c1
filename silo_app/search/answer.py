"""A silo's answer to a verified request: the encoder must be the same, the policy decides, the index ranks. No I/O."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from silo_app.cases import CaseId, EncoderVersion, View
from silo_app.config import ReleaseSettings
from silo_app.index.gallery import GalleryIndex
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import Candidate, hits_allowed, refusal, release
from silo_app.search.messages import Refusal, ReleasedHit, SearchRequest, SiloAnswer

__all__ = ["SearchableCases", "answer"]

CardLookup = Callable[[CaseId], View | None]
"""What the catalogue knows of a case now; None once the study was recalled."""


@dataclass(frozen=True, slots=True)
class SearchableCases:
    """One open generation: an index, and what it was made with."""

    generation: str
    encoder_version: EncoderVersion
    index: GalleryIndex


def answer(
    request: SearchRequest,
    gallery: SearchableCases | None,
    *,
    silo: str,
    view_of: CardLookup,
    settings: ReleaseSettings,
) -> SiloAnswer | Refusal:
    """Return what silo `silo` says to `request`; `gallery` is None where nothing was indexed yet."""

    def refused(code: RefusalCode, encoder_version: str = "") -> Refusal:
        return Refusal.of(silo, code, query_id=request.query_id, encoder_version=encoder_version)

    cases = gallery.index.cases if gallery else settings.min_gallery
    if code := refusal(settings, asker=request.asker, purpose=request.purpose, cases=cases):
        return refused(code)
    if gallery is None:
        return refused(RefusalCode.NOT_READY)
    if request.encoder_version != gallery.encoder_version or len(request.embedding) != gallery.index.dimension:
        return refused(RefusalCode.OTHER_ENCODER, gallery.encoder_version)
    ranked = _ranked(request, gallery.index, view_of, hits_allowed(settings, request.k))
    return SiloAnswer(
        query_id=request.query_id,
        silo=silo,
        encoder_version=gallery.encoder_version,
        generation=gallery.generation,
        indexed=gallery.index.cases,
        hits=tuple(
            ReleasedHit(case=hit.case, score=hit.score, card=hit.card) for hit in release(settings, request.k, ranked)
        ),
    )


def _ranked(request: SearchRequest, index: GalleryIndex, view_of: CardLookup, k: int) -> Iterator[Candidate]:
    """Yield the nearest cases that the catalogue still holds, best first; asks for more where some are gone."""
    wanted, seen = k, 0
    while True:
        hits = index.search(request.embedding, wanted)
        for hit in hits[seen:]:
            if (view := view_of(hit.case)) is not None:
                yield Candidate(case=hit.case, score=hit.score, view=view)
        if len(hits) < wanted:
            return
        seen, wanted = len(hits), 2 * wanted
