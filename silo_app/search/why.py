"""Why hits of the own silo are similar: which places of the two images make the similarity; nothing is asked of others.

Other hospitals hand out no embeddings, so that their hits cannot be explained here.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.audit.log import AuditLog
from silo_app.cases import CaseId, Embedding, View
from silo_app.catalogue import Catalogue
from silo_app.config import SiloHome
from silo_app.encoder.embed import LoadedEncoder
from silo_app.encoder.places import similarity_map
from silo_app.errors import NotReady
from silo_app.imaging.cache import RadiographCache
from silo_app.search.examples import Example, Examples
from silo_app.search.messages import SearchResult
from silo_app.search.own_encoder import own_encoder
from silo_app.search.query import Query

__all__ = ["Pair", "Part", "explained", "why"]

Radiograph = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """One of two images, float32 (H, W) in [0, 1], and each place's share in their similarity, float32 (h, w)."""

    radiograph: Radiograph
    shares: NDArray[np.float32]

    @property
    def similarity(self) -> float:
        """What the places make together."""
        return float(self.shares.mean())


@dataclass(frozen=True, slots=True)
class Pair:
    """A hit's image beside the query's; `query` is None where the query is no single image, or that is not in the cache."""

    case: CaseId
    query: Part | None
    """Compared with the hit's image."""
    hit: Part
    """Compared with what was asked: the refined vector, the region's, or the image's."""


def why(home: SiloHome, example: Example, query: Query, result: SearchResult, *, user: str = "") -> list[Pair]:
    """Explain a result's hits of the own silo, best first; of a case with several images the nearest one's.

    An image that is not in the cache explains nothing: a hit without one is left out, and `query` of all is None if it is
    the image asked with. That the cases' images were shown goes into the audit log first.
    """
    encoder = own_encoder(home, query.encoder_version)
    image = Examples(home, [example]).image_if_cached(example)
    with Catalogue.open(home.catalogue) as catalogue:
        found = {hit.case_id: catalogue.views_of(hit.case_id) for hit in result.hits if hit.silo == home.config.name}
    cache = RadiographCache(home.cache)
    images = {case: [*_cached(cache, held)] for case, held in found.items()}
    images = {case: held for case, held in images.items() if held}  # one may also have been recalled since
    audit = AuditLog(home.audit)
    audit.append("shown", {"asked_query": result.query_id, "user": user, "cases": list(images)})
    audit.close()
    return [_pair(case, encoder, image, query.vector, held) for case, held in images.items()]


def explained(encoder: LoadedEncoder, first: Radiograph, second: Radiograph) -> tuple[Part, Part]:
    """Return two images, each with its places' shares in their similarity."""
    vectors = [encoder.radiographs([image])[0] for image in (first, second)]
    return (
        Part(first, similarity_map(encoder, first, vectors[1])),
        Part(second, similarity_map(encoder, second, vectors[0])),
    )


def _cached(cache: RadiographCache, views: Sequence[View]) -> Iterator[Radiograph]:
    for view in views:
        with contextlib.suppress(NotReady):
            yield cache.read(view.digest)


def _pair(
    case: CaseId, encoder: LoadedEncoder, image: Radiograph | None, asked: Embedding, images: Sequence[Radiograph]
) -> Pair:
    hit = max((Part(one, similarity_map(encoder, one, asked)) for one in images), key=lambda part: part.similarity)
    if image is None:
        return Pair(case, None, hit)
    return Pair(case, Part(image, similarity_map(encoder, image, encoder.radiographs([hit.radiograph])[0])), hit)
