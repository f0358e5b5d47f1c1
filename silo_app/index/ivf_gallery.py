"""A large gallery in FAISS: inverted lists of 8-bit vectors find candidates, half-precision vectors rank them exactly.

An exact scan grows with the gallery; above a size that `silo.yaml` names (index.exact_up_to), only the lists nearest to
the query are scanned. What is found is then scored as in an exact gallery, so that a case has the same score in both;
what can be lost is a case whose list was not scanned. How many lists are scanned is measured when the index is made.

Among some views only, up to `EXACT_AMONG` are scored one by one. Of more, as many are scanned as the measured lists hold
of all views, in the lists that are nearest to the query, and then twice as many, until that changes nothing: a filter that
goes along with what images look like leaves little or nothing in the lists that an unfiltered search looks at.
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Embedding
from silo_app.errors import EncoderMismatch
from silo_app.index.faiss_gallery import damaged, selected, write_index
from silo_app.index.gallery import Enough, Hit, distinct_cases, exact_scores, rank_rows

__all__ = ["EXACT_AMONG", "MIN_VIEWS", "RECALL", "IvfGallery", "write_ivf"]

EXACT_AMONG = 100_000
"""Selected views that are all scored: 41 ms for 128 numbers each, 76 ms for 256, one core of an AMD EPYC."""
MIN_VIEWS = 10_000
"""Fewer views than this make no sensible lists; they are scanned exactly whatever the setting says."""
RECALL = 0.99
"""The share of the true ten nearest views that the calibration must find (or all lists are scanned)."""
_PER_LIST = 64  # vectors in the sample that a list's centre is made from; FAISS warns below 39
_CALIBRATED_BY = 256  # stored vectors that play the query
_NEAREST = 10
_SPARE = 64
_BLOCK = 65_536
_SCORED = 4096
_MARGIN = 2
"""Times as many of the selected views are scanned: from a query that is none of them, its nearest lie further apart."""


class IvfGallery:
    """A `GalleryIndex` that finds candidates approximately and scores them exactly."""

    def __init__(self, index: Any, stored: NDArray[np.float16], cases: NDArray[np.uint8]) -> None:
        self._index = index
        self._stored = stored  # float16 (n, D), memory-mapped
        self._cases = cases  # uint8 (n, 16)
        self._distinct = distinct_cases(cases)
        # what a float32 product of D numbers may be off by, and the rounding of exact scores
        self._doubt = 1e-6 + self.dimension * 2.0**-23

    @classmethod
    def open(cls, file: Path, vectors_file: Path, cases: NDArray[np.uint8]) -> "IvfGallery":
        """Memory-map what `write_ivf` wrote. Raises `IndexDamaged` if it is not that, or of other rows."""
        import faiss

        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            stored = np.load(vectors_file, mmap_mode="r", allow_pickle=False)
        except (RuntimeError, OSError, ValueError, EOFError):
            raise damaged(file, "it is not an index of FAISS with its vectors") from None
        if stored.shape != (len(cases), index.d) or stored.dtype != np.float16 or index.ntotal != len(cases):
            raise damaged(file, f"it has {index.ntotal} vectors for {len(cases)} views")
        return cls(index, stored, cases)

    @property
    def dimension(self) -> int:
        """D of its embeddings."""
        return int(self._stored.shape[1])

    @property
    def views(self) -> int:
        """How many embeddings it holds."""
        return len(self._stored)

    @property
    def cases(self) -> int:
        """How many distinct cases it holds."""
        return self._distinct

    def search(self, query: Embedding, k: int) -> list[Hit]:
        """Return the nearest `k` cases among the lists that are scanned, widened until there are `k` or all lists."""
        return self._searched(query, k, self.views, int(self._index.nprobe))

    def _searched(self, query: Embedding, k: int, most: int, lists: int, among: Any = None) -> list[Hit]:
        """Search so many lists, among what a selector of FAISS selects if there is one: `most` views."""
        import faiss

        self._require_fits(query)
        faiss.omp_set_num_threads(1)  # of this thread: queries run beside each other, not within each other
        wanted = min(most, 4 * k + _SPARE)
        while True:
            rows = _candidates(self._index, query, wanted, lists, among)
            hits = rank_rows(self._cases[rows], exact_scores(self._stored[rows], query), k)
            if len(hits) == k or (lists >= self._index.nlist and (len(rows) < wanted or wanted == most)):
                return hits
            wanted, lists = min(most, 4 * wanted), min(int(self._index.nlist), 4 * lists)

    def _require_fits(self, query: Embedding) -> None:
        if query.shape != (self.dimension,):
            raise EncoderMismatch(
                f"the query has shape {query.shape}, the index ({self.dimension},)",
                remedy="Ask with the encoder that the index was made with.",
            )

    def search_many(
        self, queries: NDArray[np.float32], counts: Sequence[int], enough: Sequence[Enough | None] = ()
    ) -> list[list[Hit]]:
        """Return the nearest cases to each of many queries, float32 (n, D), as many as were asked for."""
        del enough  # to rank a view costs little beside what it takes to find it
        return [self.search(query, k) for query, k in zip(queries, counts, strict=True)]

    def search_among(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        """Return the nearest `k` cases of some rows, ascending int64 (m,)."""
        self._require_fits(query)
        if len(rows) <= EXACT_AMONG:
            return self._scored(query, k, rows)
        lists = self._lists_among(query, rows)
        with selected(self.views, rows) as selector:
            hits = self._searched(query, 2 * k, len(rows), lists, selector)
            while lists < self._index.nlist:
                lists = min(2 * lists, int(self._index.nlist))
                more = self._searched(query, 2 * k, len(rows), lists, selector)
                if more == hits:  # twice as many as are wanted: one that is missed changes none of fewer
                    break
                hits = more
            return hits[:k]

    def _scored(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        """Return the nearest `k` cases of some rows by a product with each; the nearest of these are scored exactly."""
        rough = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _SCORED):
            rough[start : start + _SCORED] = self.vectors(rows[start : start + _SCORED]) @ query
        wanted = 2 * k + _SPARE
        while True:
            wanted = min(wanted, len(rows))
            least = np.partition(rough, len(rows) - wanted)[len(rows) - wanted] if wanted else 0.0
            near = rows[rough >= least]  # all that tie with the last: scores of copies are equal
            hits = rank_rows(self._cases[near], exact_scores(self._stored[near], query), k)
            if wanted == len(rows) or (len(hits) == k and hits[-1].score > least + self._doubt):
                return hits
            wanted *= 4

    def _lists_among(self, query: Embedding, rows: NDArray[np.int64]) -> int:
        """Return how many of the lists nearest to a query hold enough of some rows."""
        lists = int(self._index.nlist)
        usual = int(self._index.nprobe)
        held = np.bincount(self._list_of[rows], minlength=lists)  # (lists,)
        _, order = self._index.quantizer.search(query[None, :], lists)
        enough = _MARGIN * usual * self.views / lists
        return max(usual, min(lists, int(np.searchsorted(np.cumsum(held[order[0]]), enough)) + 1))

    @functools.cached_property
    def _list_of(self) -> NDArray[np.int32]:
        """The list that each row is in, int32 (n,)."""
        import faiss

        inverted = self._index.invlists
        found = np.zeros(self.views, np.int32)
        for number in range(int(self._index.nlist)):
            if size := inverted.list_size(number):
                found[faiss.rev_swig_ptr(inverted.get_ids(number), size)] = number
        return found

    @property
    def row_cases(self) -> NDArray[np.uint8]:
        """The case whose view each row holds, uint8 (n, 16)."""
        return self._cases

    def case_of(self, row: int) -> CaseId:
        """Return whose view a row holds."""
        return CaseId(self._cases[row].tobytes().hex())

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return stored embeddings, float32 (n, D), exactly as they are stored."""
        return np.asarray(self._stored[rows], np.float32)


def write_ivf(file: Path, vectors_file: Path, vectors: NDArray[np.float32]) -> None:
    """Write an index over unit vectors (n, D), n at least `MIN_VIEWS`, and the vectors in half precision."""
    import faiss

    stored = vectors.astype(np.float16)
    with vectors_file.open("wb") as opened:
        np.save(opened, stored, allow_pickle=False)
    count, dimension = vectors.shape
    lists = max(1, int(min(16_384, 4 * math.sqrt(count), count // _PER_LIST)))
    centres = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        centres, dimension, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    random = np.random.default_rng(count)  # the same vectors make the same index
    sample = np.sort(random.choice(count, min(count, _PER_LIST * lists), replace=False))
    index.train(np.ascontiguousarray(stored[sample], np.float32))
    for start in range(0, count, _BLOCK):
        index.add(np.ascontiguousarray(stored[start : start + _BLOCK], np.float32))
    index.nprobe = _calibrated(index, stored, random)
    write_index(index, file)


def _calibrated(index: Any, stored: NDArray[np.float16], random: np.random.Generator) -> int:
    """Return the fewest lists (a power of two) whose scan finds `RECALL` of the true nearest views."""
    rows = random.choice(len(stored), min(len(stored), _CALIBRATED_BY), replace=False)
    noise = random.standard_normal((len(rows), stored.shape[1])) / (4 * math.sqrt(stored.shape[1]))
    queries = (stored[rows] + noise).astype(np.float32)  # near the gallery, as a query is, but not in it
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    truth = _nearest(stored, queries)
    lists = 1
    while lists < index.nlist:
        found = 0
        for query, true in zip(queries, truth, strict=True):
            rows = _candidates(index, query, 4 * _NEAREST + _SPARE, lists)
            found += len(np.intersect1d(rows, true))
        if found >= RECALL * truth.size:
            return lists
        lists *= 2
    return int(index.nlist)


def _nearest(stored: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the rows of the `_NEAREST` stored vectors of each query, int64 (q, _NEAREST), by exact scan in blocks."""
    best = np.full((len(queries), _NEAREST), -2.0, np.float32)
    rows = np.zeros((len(queries), _NEAREST), np.int64)
    for start in range(0, len(stored), _BLOCK):
        scores = queries @ stored[start : start + _BLOCK].astype(np.float32).T  # (q, block)
        every = np.concatenate([best, scores], axis=1)
        numbers = np.arange(start, start + scores.shape[1])
        named = np.concatenate([rows, np.broadcast_to(numbers, scores.shape)], axis=1)
        kept = np.argpartition(-every, _NEAREST - 1, axis=1)[:, :_NEAREST]
        best, rows = np.take_along_axis(every, kept, 1), np.take_along_axis(named, kept, 1)
    return rows


def _candidates(index: Any, query: Embedding, wanted: int, lists: int, among: Any = None) -> NDArray[np.int64]:
    """Return up to `wanted` rows found by scanning `lists` lists, int64 (n,)."""
    import faiss

    parameters: Any = faiss.SearchParametersIVF
    scanned = parameters(sel=among, nprobe=lists) if among else parameters(nprobe=lists)
    _, rows = index.search(query[None, :], wanted, params=scanned)
    found: NDArray[np.int64] = rows[0][rows[0] >= 0].astype(np.int64)
    return found
