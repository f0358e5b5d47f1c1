"""A gallery in Milvus, for a silo that outgrew one machine: candidates come from Milvus, scores are ours. The only importer.

A generation is one collection. Milvus ranks by its own arithmetic; every candidate is scored again from its stored
vector, so that a case has the same score wherever it is held (https://milvus.io/docs).
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app import durable
from silo_app.cases import CaseId, Embedding
from silo_app.config import MilvusSettings
from silo_app.errors import EncoderMismatch, IndexDamaged, NotReady
from silo_app.index.gallery import Enough, Hit, best_among, distinct_cases, exact_scores, rank_cases

__all__ = ["MilvusGallery", "collections_of", "drop_others", "has_collection", "write_milvus"]

_PREFIX = "siloscope_"
_MOST = 16_384
"""What Milvus returns to one search at most."""
_SPARE = 64
_BLOCK = 1000
_DOUBT = 1e-5
"""What Milvus may be off by in float32; nearer to the last candidate than this, another case could tie."""
_WHOLE_S = 600.0
"""How long Milvus may take, at least, to load or to seal a whole gallery; every other call has `MilvusSettings.timeout_s`,
which the client itself keeps to only while it connects."""
_NOT_LOADED = 101
"""Milvus's code for a collection that has to be loaded before it is searched."""
_STRONG = "Strong"
"""Reads see all that was written: by default they may be some seconds old, and miss what a build has just put there."""


class MilvusGallery:
    """A `GalleryIndex` over one collection of a Milvus server."""

    def __init__(
        self, client: Any, settings: MilvusSettings, collection: str, dimension: int, cases: NDArray[np.uint8]
    ) -> None:
        self._client = client
        self._settings = settings
        self._collection = collection
        self._dimension = dimension
        self._cases = cases  # uint8 (n, 16): the entity with row i is a view of case i
        self._distinct = distinct_cases(cases)

    @classmethod
    def open(
        cls, settings: MilvusSettings, kit: Path, collection: str, dimension: int, cases: NDArray[np.uint8]
    ) -> "MilvusGallery":
        """Connect and load. Raises `NotReady` if Milvus does not answer, `IndexDamaged` for a missing collection."""
        client = _connect(settings, kit)
        with _understood(settings):
            if not client.has_collection(collection, timeout=settings.timeout_s):
                raise _damaged(collection, "Milvus does not have it")
            client.load_collection(collection, timeout=max(settings.timeout_s, _WHOLE_S))
            rows = int(client.get_collection_stats(collection, timeout=settings.timeout_s)["row_count"])
        if rows != len(cases):
            raise _damaged(collection, f"it has {rows} vectors for {len(cases)} views")
        return cls(client, settings, collection, dimension, cases)

    @property
    def dimension(self) -> int:
        """D of its embeddings."""
        return self._dimension

    @property
    def views(self) -> int:
        """How many embeddings it holds."""
        return len(self._cases)

    @property
    def cases(self) -> int:
        """How many distinct cases it holds."""
        return self._distinct

    def search(self, query: Embedding, k: int) -> list[Hit]:
        """Return the nearest `k` cases, asking Milvus for more views where few cases have all of the nearest."""
        if query.shape != (self.dimension,):
            raise EncoderMismatch(
                f"the query has shape {query.shape}, the index ({self.dimension},)",
                remedy="Ask with the encoder that the index was made with.",
            )
        most = min(self.views, _MOST)
        wanted = min(most, 2 * k + _SPARE)
        while True:
            rows, vectors = self._nearest(query, wanted)
            names = [CaseId(row.tobytes().hex()) for row in self._cases[rows]]
            scores = exact_scores(vectors, query)
            hits = rank_cases(names, scores, k)
            if wanted >= most or (len(hits) == k and hits[-1].score > scores.min() + _DOUBT):
                return hits
            wanted = min(most, 4 * wanted)

    def search_many(
        self, queries: NDArray[np.float32], counts: Sequence[int], enough: Sequence[Enough | None] = ()
    ) -> list[list[Hit]]:
        """Return the nearest cases to each of many queries, float32 (n, D), as many as were asked for."""
        del enough  # to rank a view costs little beside what it takes to find it
        return [self.search(query, k) for query, k in zip(queries, counts, strict=True)]

    def search_among(self, query: Embedding, k: int, rows: NDArray[np.int64]) -> list[Hit]:
        """Return the nearest `k` cases of some rows, ascending int64 (m,)."""
        if len(rows) <= _BLOCK:
            return best_among(self, query, k, rows)
        most = min(self.views, _MOST)
        chosen, wanted = np.zeros(self.views, np.bool_), min(most, 2 * k + _SPARE)
        chosen[rows] = True
        while True:
            found, vectors = self._nearest(query, wanted)
            kept = chosen[found]
            scores = exact_scores(vectors[kept], query)
            hits = rank_cases([self.case_of(int(row)) for row in found[kept]], scores, k)
            last = float(exact_scores(vectors[-1:], query)[0])
            if len(hits) == k and hits[-1].score > last + _DOUBT:
                return hits
            if wanted >= most:
                return hits if most == self.views else best_among(self, query, k, rows)
            wanted = min(most, 4 * wanted)

    @property
    def row_cases(self) -> NDArray[np.uint8]:
        """The case whose view each row holds, uint8 (n, 16)."""
        return self._cases

    def case_of(self, row: int) -> CaseId:
        """Return whose view a row holds."""
        return CaseId(self._cases[row].tobytes().hex())

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return stored embeddings, float32 (n, D), exactly as they are stored."""
        found = np.empty((len(rows), self.dimension), np.float32)
        for start in range(0, len(rows), _BLOCK):
            asked = rows[start : start + _BLOCK].tolist()
            given = self._asked(
                self._client.get, asked, ["row", "vector"], timeout=self._settings.timeout_s, consistency_level=_STRONG
            )
            entities = {int(entity["row"]): entity["vector"] for entity in given}
            if entities.keys() != set(asked):
                raise _damaged(self._collection, f"{len(set(asked) - entities.keys())} of its vectors are missing")
            found[start : start + len(asked)] = [entities[row] for row in asked]
        return found

    def _nearest(self, query: Embedding, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if not wanted:
            return np.empty(0, np.int64), np.empty((0, self.dimension), np.float32)
        answer = self._asked(
            self._client.search,
            data=[query.tolist()],
            limit=wanted,
            output_fields=["vector"],
            timeout=self._settings.timeout_s,
            consistency_level=_STRONG,
        )[0]
        rows = np.array([int(hit["row"]) for hit in answer], np.int64)
        vectors = np.array([hit["entity"]["vector"] for hit in answer], np.float32).reshape(len(rows), self.dimension)
        return rows, vectors

    def _asked(self, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Return what Milvus says of the collection; one that it does not have loaded (any more) is loaded first."""
        from pymilvus.exceptions import MilvusException

        with _understood(self._settings):
            try:
                return ask(self._collection, *arguments, **named)
            except MilvusException as error:
                if error.code != _NOT_LOADED:
                    raise
            self._client.load_collection(self._collection, timeout=self._settings.timeout_s)
            return ask(self._collection, *arguments, **named)


def write_milvus(settings: MilvusSettings, kit: Path, silo: str, vectors: NDArray[np.float32]) -> str:
    """Write unit vectors (n, D), rounded to half precision, into a new collection; return its name.

    Raises `NotReady` if Milvus does not answer; what was written of the collection stays for `drop_others`.
    """
    from pymilvus import DataType, MilvusClient

    client = _connect(settings, kit)
    name = f"{_PREFIX}{silo.replace('-', '_')}_{secrets.token_hex(8)}"
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    indexed = MilvusClient.prepare_index_params()
    indexed.add_index("vector", index_type=settings.index_type, metric_type="IP")
    stored = vectors.astype(np.float16).astype(np.float32)
    with _understood(settings):
        client.create_collection(name, schema=schema, index_params=indexed, timeout=settings.timeout_s)
        for start in range(0, len(stored), _BLOCK):
            block = stored[start : start + _BLOCK].tolist()
            rows = [{"row": start + i, "vector": vector} for i, vector in enumerate(block)]
            client.insert(name, rows, timeout=settings.timeout_s)
        client.flush(name, timeout=max(settings.timeout_s, _WHOLE_S))
    return name


def drop_others(settings: MilvusSettings, kit: Path, silo: str, kept: set[str]) -> None:
    """Remove the silo's collections that no generation names: what a killed build left."""
    client = _connect(settings, kit)
    with _understood(settings):
        for name in _of_silo(client, settings, silo):
            if name not in kept:
                client.drop_collection(name, timeout=settings.timeout_s)


def has_collection(settings: MilvusSettings, kit: Path, collection: str) -> bool:
    """Return whether Milvus has a collection. Raises `NotReady` if it does not answer."""
    client = _connect(settings, kit)
    with _understood(settings):
        return bool(client.has_collection(collection, timeout=settings.timeout_s))


def collections_of(settings: MilvusSettings, kit: Path, silo: str) -> list[str]:
    """Return the names of the silo's collections. Raises `NotReady` if Milvus does not answer."""
    client = _connect(settings, kit)
    with _understood(settings):
        return _of_silo(client, settings, silo)


def _of_silo(client: Any, settings: MilvusSettings, silo: str) -> list[str]:
    prefix = f"{_PREFIX}{silo.replace('-', '_')}_"
    names = client.list_collections(timeout=settings.timeout_s)
    return [name for name in names if name.startswith(prefix) and len(name) == len(prefix) + 16]


def _connect(settings: MilvusSettings, kit: Path) -> Any:
    try:
        from pymilvus import MilvusClient
    except ImportError:
        raise NotReady(
            "this silo's index is in Milvus, and pymilvus is not installed",
            where="silo.yaml: index.milvus",
            remedy="Install siloscope[milvus].",
        ) from None
    token = ""
    if settings.token_file is not None:
        token = durable.read_private_text(kit / settings.token_file).strip()
    uri = settings.uri if "://" in settings.uri else str(kit / settings.uri)
    with _understood(settings):
        return MilvusClient(uri=uri, token=token, timeout=settings.timeout_s)


@contextmanager
def _understood(settings: MilvusSettings) -> Iterator[None]:
    """Turn what Milvus raises, or gRPC below it for a call that took too long, into what a person can act upon."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except MilvusException as error:
        raise _unanswered(settings, f"{type(error).__name__} (code {error.code})") from None
    except RpcError as error:
        raise _unanswered(settings, error.code().name) from None


def _unanswered(settings: MilvusSettings, how: str) -> NotReady:
    return NotReady(
        f"Milvus refused, or did not answer: {how}",
        where=settings.uri,
        remedy="Is the server running, and are uri and token_file (silo.yaml: index.milvus) right?",
    )


def _damaged(collection: str, problem: str) -> IndexDamaged:
    return IndexDamaged(problem, where=collection, remedy="Run `silo index build` to make a new generation.")
