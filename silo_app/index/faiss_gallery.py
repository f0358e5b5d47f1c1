"""An exact gallery in FAISS: inner product over half-precision vectors, two bytes a component, read by memory map."""

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, Embedding
from silo_app.errors import EncoderMismatch, IndexDamaged
from silo_app.index.gallery import Enough, Hit, best_among, distinct_cases, exact_scores, rank_rows

__all__ = ["FEW", "FaissGallery", "damaged", "selected", "write_faiss", "write_index"]

FEW = 2000
"""Rows that are scored one by one in less time than it takes to scan everything."""
_TOGETHER = 12
"""From so many queries at once on, a product of matrices is quicker than a scan, where vectors lie ready for it."""
_READY_BYTES = 128 * 1024 * 1024
"""What vectors of single precision may take in memory, beside the file: 131,072 of 256 numbers."""
_WRITTEN_BYTES = 1 << 20


class FaissGallery:
    """A `GalleryIndex` over a FAISS index file and the case of each of its rows."""

    def __init__(self, index: Any, cases: NDArray[np.uint8]) -> None:
        self._index = index
        self._cases = cases  # uint8 (n, 16): row i of the index is a view of case i
        self._distinct = distinct_cases(cases)
        self._stored = _stored(index)
        self._ready: NDArray[np.float32] | None = None
        self._readying = threading.Lock()
        # float32 sums of D products of unit vectors: what FAISS may be off by, and the rounding of exact scores
        self._doubt = 1e-6 + self.dimension * 2.0**-23

    @classmethod
    def open(cls, file: Path, cases: NDArray[np.uint8]) -> "FaissGallery":
        """Memory-map an index that `write_faiss` wrote. Raises `IndexDamaged` if it is not one, or of other rows."""
        import faiss

        try:
            # FAISS aborts the process when a mapped index is added to: nothing here ever does
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:
            raise damaged(file, "it is not an index of FAISS") from None
        if index.ntotal != len(cases):
            raise damaged(file, f"it has {index.ntotal} vectors for {len(cases)} views")
        if getattr(index, "code_size", 0) != np.dtype(np.float16).itemsize * index.d:
            raise damaged(file, "it does not hold vectors of half precision")
        return cls(index, cases)

    @property
    def dimension(self) -> int:
        """D of its embeddings."""
        return int(self._index.d)

    @property
    def views(self) -> int:
        """How many embeddings it holds."""
        return int(self._index.ntotal)

    @property
    def cases(self) -> int:
        """How many distinct cases it holds."""
        return self._distinct

    def search(self, query: Embedding, k: int) -> list[Hit]:
        """Return the nearest `k` cases, asking FAISS for more views until no other case can be among them."""
        return self._searched(query, k, self.views, None)

    def _searched(self, query: Embedding, k: int, most: int, among: Any) -> list[Hit]:
        """Search, among what FAISS's parameters select if there are any: `most` views."""
        import faiss

        if query.shape != (self.dimension,):
            raise EncoderMismatch(
                f"the query has shape {query.shape}, the index ({self.dimension},)",
                remedy="Ask with the encoder that the index was made with.",
            )
        faiss.omp_set_num_threads(1)  # of this thread: queries run beside each other, not within each other
        wanted = min(most, _views_for(k))
        while wanted:
            approximate, rows = self._index.search(query[None, :], wanted, params=among)
            hits = self._ranked(rows[0], query, k)
            if wanted == most or self._is_certain(hits, k, float(approximate[0, -1])):
                return hits
            wanted = min(most, 2 * wanted)
        return []

    def search_many(
        self, queries: NDArray[np.float32], counts: Sequence[int], enough: Sequence[Enough | None] = ()
    ) -> list[list[Hit]]:
        """Return the nearest cases to each of many queries, float32 (n, D), with one call of FAISS, or what is enough."""
        wanted = min(self.views, _views_for(max(counts))) if counts else 0
        if not wanted or queries.shape[1] != self.dimension:
            return [self.search(query, k) for query, k in zip(queries, counts, strict=True)]
        approximate, rows = self._nearest(np.ascontiguousarray(queries, np.float32), wanted)
        found = zip(queries, counts, enough or repeat(None, len(counts)), approximate, rows, strict=True)
        return [
            self._of_few(query, k, part, similar, near) or self._of_many(query, k, similar, near)
            for query, k, part, similar, near in found
        ]

    def _of_many(self, query: Embedding, k: int, similar: NDArray[np.float32], rows: NDArray[np.int64]) -> list[Hit]:
        """Return the nearest `k` cases, of what FAISS has found or of what it is asked for now."""
        hits = self._ranked(rows, query, k)
        if len(rows) == self.views or self._is_certain(hits, k, float(similar[-1])):
            return hits
        return self.search(query, k)

    def _of_few(
        self, query: Embedding, k: int, enough: Enough | None, similar: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> list[Hit]:
        """Return what is enough, of no more views than that takes; nothing if it cannot be told from these.

        To rank a view costs more than to find it.
        """
        if enough is None:
            return []
        near = int(np.searchsorted(-similar, self._doubt - enough.similarity, side="right"))
        few = near + _views_for(enough.more)
        if few >= len(rows):
            return []
        hits = self._ranked(rows[:few], query, k)
        above = bisect_right(hits, -enough.similarity, key=lambda hit: -hit.score)
        ended = hits[: above + enough.more]
        if len(ended) < above + enough.more:
            return []
        least = ended[-1].score if enough.more else enough.similarity
        return ended if least > float(similar[few - 1]) + self._doubt else []

    def _nearest(self, queries: NDArray[np.float32], wanted: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return similarities, not to the last digit, and rows of the `wanted` nearest views to each query; best first."""
        import faiss

        faiss.omp_set_num_threads(1)
        if (ready := self._readied(len(queries))) is None:
            similarities, rows = self._index.search(queries, wanted)
        else:
            faiss.cvar.distance_compute_blas_threshold = _TOGETHER
            similarities, rows = faiss.knn(queries, ready, wanted, metric=faiss.METRIC_INNER_PRODUCT)
        return similarities, rows

    def _readied(self, queries: int) -> NDArray[np.float32] | None:
        """Return all vectors in single precision, float32 (n, D), if that pays for so many queries; made once."""
        if queries < _TOGETHER or self._stored.size * 4 > _READY_BYTES:
            return None
        with self._readying:
            if self._ready is None:
                self._ready = self._stored.astype(np.float32)
            return self._ready

    def search_among(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        """Return the nearest `k` cases of some rows, ascending int64 (m,)."""
        import faiss

        if len(rows) <= FEW:
            return best_among(self, query, k, rows)
        parameters: Any = faiss.SearchParameters
        with selected(self.views, rows) as selector:
            return self._searched(query, k, len(rows), parameters(sel=selector))

    @property
    def row_cases(self) -> NDArray[np.uint8]:
        """The case whose view each row holds, uint8 (n, 16)."""
        return self._cases

    def case_of(self, row: int) -> CaseId:
        """Return whose view a row holds."""
        return CaseId(self._cases[row].tobytes().hex())

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return stored embeddings, float32 (n, D), exactly as they are stored."""
        return self._stored[rows].astype(np.float32)

    def _ranked(self, rows: NDArray[np.int64], query: Embedding, k: int) -> list[Hit]:
        stored = self._stored if self._ready is None else self._ready  # the same numbers, one ready to be multiplied
        return rank_rows(self._cases[rows], exact_scores(stored[rows], query), k)

    def _is_certain(self, hits: list[Hit], k: int, last: float) -> bool:
        """Whether no view beyond the last that FAISS gave can reach the `k`-th case, not even by a tie."""
        return len(hits) == k and hits[-1].score > last + self._doubt


def _views_for(k: int) -> int:
    """Return how many of the nearest views are likely of `k` cases: of many, some are of one case."""
    return k + 16 + k // 8


def _stored(index: Any) -> NDArray[np.float16]:
    """Return what the index holds, float16 (n, D), where it lies: as good as the index is alive."""
    import faiss

    if not index.ntotal:
        return np.empty((0, index.d), np.float16)
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    stored: NDArray[np.float16] = codes.view(np.float16).reshape(index.ntotal, index.d)
    return stored


@contextmanager
def selected(views: int, rows: NDArray[np.int64]) -> Iterator[Any]:
    """Give FAISS's selector of some of so many rows; it is only good within the block."""
    import faiss

    chosen = np.zeros(views, np.bool_)
    chosen[rows] = True
    bits = np.packbits(chosen, bitorder="little")  # the selector points into this
    yield faiss.IDSelectorBitmap(views, faiss.swig_ptr(bits))
    del bits


def write_faiss(file: Path, vectors: NDArray[np.float32]) -> None:
    """Write an index over unit vectors (n, D), in their order."""
    import faiss

    index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if len(vectors):
        # FAISS 1.15.1 rounds a half up, numpy to even: rounded here, what is stored depends on neither
        index.add(np.ascontiguousarray(vectors, np.float32).astype(np.float16).astype(np.float32))
    write_index(index, file)


def write_index(index: Any, file: Path) -> None:
    """Write an index of FAISS. Raises `OSError`: FAISS itself says nothing of what the disk refused at the very end."""
    import faiss

    with file.open("wb") as opened:
        writer: Any = faiss.PyCallbackIOWriter  # type: ignore[attr-defined]
        faiss.write_index(index, writer(opened.write, _WRITTEN_BYTES))


def damaged(file: Path, problem: str) -> IndexDamaged:
    """Return the error for an index file."""
    return IndexDamaged(problem, where=str(file), remedy="Run `silo index build` to make a new generation.")
