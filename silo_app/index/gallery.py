"""What an index of one silo's cases can be asked, whichever library answers; and how views become cases.

A case has one or more views; its similarity is that of its nearest view.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CASE_BYTES, CaseId, Embedding

__all__ = [
    "SCORE_DIGITS",
    "Enough",
    "GalleryIndex",
    "Hit",
    "best_among",
    "distinct_cases",
    "exact_scores",
    "rank_cases",
    "rank_rows",
]

_BLOCK = 4096
SCORE_DIGITS = 6
"""Scores are rounded to this many decimals: half precision of unit vectors holds no more (2^-11 a component)."""


class Hit(NamedTuple):  # every query makes many: a dataclass would take three times as long
    """One case and its similarity to the query, in [-1, 1]."""

    case: CaseId
    score: float

    @classmethod
    def all_of(cls, pairs: Iterable[tuple[str, float]]) -> "list[Hit]":
        """Return pairs of case and similarity as hits; for many, at a third of the cost of making each."""
        return list(map(tuple.__new__, repeat(cls), pairs))


class Enough(NamedTuple):
    """Where a search may end before it has as many cases as were asked for."""

    similarity: float
    """All cases of at least this similarity are wanted,"""
    more: int
    """and so many of the next ones."""


class GalleryIndex(Protocol):
    """The searchable cases of one silo, all embedded by one encoder; immutable, and searched from many threads.

    Contract, tested for every implementation against brute force (tests/index): `search` returns the `k` nearest cases,
    or all if there are fewer, best first, ties by case id; a case's score is `exact_scores` of its nearest view and
    depends on that view and the query alone, so that it is the same in a silo's index and in a pooled one. An
    implementation that does not look at every view (`IvfGallery`, Milvus with HNSW) may miss a case, and says so; what it
    returns obeys the rest.
    """

    @property
    def dimension(self) -> int:
        """D of its embeddings."""
        ...

    @property
    def views(self) -> int:
        """How many embeddings it holds."""
        ...

    @property
    def cases(self) -> int:
        """How many distinct cases it holds."""
        ...

    def search(self, query: Embedding, k: int) -> list[Hit]:
        """Return the nearest `k` cases to a unit vector, float32 (D,)."""
        ...

    def search_many(
        self, queries: NDArray[np.float32], counts: Sequence[int], enough: Sequence[Enough | None] = ()
    ) -> list[list[Hit]]:
        """Return what `search` does for each of many unit vectors, float32 (n, D), with its own `k`, in less time.

        With what is `enough` for each of them, a list may end there: in it is the beginning of what `search` returns.
        """
        ...

    def search_among(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        """Return what `search` would if there were only the views in `rows`, ascending int64 (m,)."""
        ...

    @property
    def row_cases(self) -> NDArray[np.uint8]:
        """The case whose view each row holds, uint8 (n, 16)."""
        ...

    def case_of(self, row: int) -> CaseId:
        """Return whose view a row holds."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored embeddings of rows (n,), float32 (n, D), exactly as they are stored."""
        ...


def exact_scores(stored: NDArray[np.float16] | NDArray[np.float32], query: Embedding) -> NDArray[np.float64]:
    """Return the similarities of stored half-precision vectors (n, D) to a query (D,), float64 (n,) in [-1, 1].

    A library's own scores differ in the last digits with the processor's instructions; these do not: a product of
    float16 and float32 is exact in float64, each row is summed by itself, and the sum is rounded far above its error.
    """
    products = stored.astype(np.float64)  # (n, D)
    products *= query
    scores: NDArray[np.float64] = np.clip(np.round(products.sum(axis=1), SCORE_DIGITS), -1.0, 1.0)  # (n,)
    return scores + 0.0  # turns -0.0 into 0.0


def rank_cases(cases: Iterable[CaseId], scores: Iterable[float], k: int) -> list[Hit]:
    """Return the best `k` cases of scored views: nearest view per case, best first, ties by case id."""
    ranked = sorted(zip((-score for score in scores), cases, strict=True))
    best: dict[CaseId, float] = {}
    for negative, case in ranked:
        if len(best) >= k:
            break
        best.setdefault(case, 0.0 - negative)
    return [Hit(case=case, score=score) for case, score in best.items()]


def rank_rows(cases: NDArray[np.uint8], scores: NDArray[np.float64], k: int) -> list[Hit]:
    """Return what `rank_cases` does for the cases uint8 (n, 16) of scored views (n,): at a fraction of its cost."""
    name = np.ascontiguousarray(cases).view(">u8").astype(np.uint64)  # (n, 2): as numbers ordered as their names are
    order = np.lexsort((name[:, 1], name[:, 0], -scores))  # (n,)
    return _best(cases[order].tobytes().hex(" ", CASE_BYTES).split(), scores[order].tolist(), k)


def _best(ranked: list[str], scores: list[float], k: int) -> list[Hit]:
    """Return the best `k` cases of ranked views, each at its first view."""
    distinct = list(dict.fromkeys(ranked))
    if len(distinct) < len(ranked):
        ranked.reverse()
        scores.reverse()
        best = dict(zip(ranked, scores, strict=True))  # of a case, its first is what stays
        ranked, scores = distinct, list(map(best.__getitem__, distinct))
    return Hit.all_of(zip(ranked[:k], scores[:k], strict=True))


def best_among(index: GalleryIndex, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
    """Return the best `k` cases of some rows by scoring all of them, in blocks: for few rows, or any library."""
    best: list[Hit] = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        scores = exact_scores(index.vectors(block), query)
        found = rank_cases([index.case_of(int(row)) for row in block], scores.tolist(), k)
        best = rank_cases([hit.case for hit in (*best, *found)], [hit.score for hit in (*best, *found)], k)
    return best


def distinct_cases(cases: NDArray[np.uint8]) -> int:
    """Return how many different cases uint8 (n, 16) names."""
    return len(np.unique(np.ascontiguousarray(cases).view("V16"))) if len(cases) else 0
