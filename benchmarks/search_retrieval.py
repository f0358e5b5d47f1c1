"""Is a search over divided hospitals as good as over one pooled index? To the last digit, on real radiographs.

Patients of an image set are divided over three hospitals; held-out images ask. Each hospital answers as the product does
(`search.answer` over its own FAISS file, half precision) and the answers are merged; beside it one index over all images.
Both rankings are judged by precision among the first ten, mean average precision and nDCG (Järvelin and Kekäläinen 2002).
The encoder is untrained (start weights of seed 0): equality depends on no weights. Similarities that are the same in two
hospitals are ordered by the merge's rule, hospital before case, in both; how many queries have such is reported.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Figure, Target
from benchmarks.image_hospitals import hospitals_of, spec_of
from silo_app.cases import CaseId, EncoderVersion, Finding, Split, View
from silo_app.config import ReleaseSettings
from silo_app.encoder.evaluate import SiloImages
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.likeness import sense_of
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.merge import merge
from silo_app.search.messages import MAX_HITS, SearchRequest, SiloAnswer, unit_embedding

__all__ = ["TARGETS", "retrieved"]

TARGETS = (
    Target("retrieval_same_rankings", 1.0, at_least=True),
    Target("retrieval_precision_at_10_difference", 0.0),
    Target("retrieval_map_difference", 0.0),
    Target("retrieval_ndcg_at_10_difference", 0.0),
    Target("retrieval_queries", 20, at_least=True),
)
HOSPITALS = 3
K = 10
ENCODER = EncoderVersion("cd" * 16)
SHOWS_ALL = ReleaseSettings(same_patient="show", same_patient_purposes=("teaching",), min_cases=1, max_hits=MAX_HITS)
Ranking = list[tuple[float, str, CaseId]]
"""Similarity, hospital and case, best first."""


def retrieved(data: Path, *, limit: int | None, input_size: int = 64) -> list[Figure]:
    """Compare both on an image set; no hospital may hold more than `MAX_HITS` images, as many as one answer holds."""
    from silo_app.encoder.embed import embed
    from silo_app.encoder.model import build

    spec = spec_of([data], input_size=input_size)
    hospitals = hospitals_of([data], spec, hospitals=HOSPITALS, alpha=0.5, seed=1, limit=limit)
    model = build(spec, 0)
    vectors = {one.silo: embed(model, one.images.pixels)[0] for one in hospitals}
    with tempfile.TemporaryDirectory() as folder:
        return compared(hospitals, vectors, Path(folder))


def compared(hospitals: Sequence[SiloImages], vectors: Mapping[str, NDArray[np.float32]], folder: Path) -> list[Figure]:
    """Return the figures of both ways, from images with unit vectors (n, D) of each hospital."""
    random, galleries, views, stored = np.random.default_rng(0), {}, {}, []
    owner: dict[CaseId, str] = {}
    for one in hospitals:
        rows = [row for row, view in enumerate(one.images.views) if view.split is not Split.HELD_OUT]
        cases = random.integers(0, 256, (len(rows), 16), dtype=np.uint8)
        for row, case in zip(rows, cases, strict=True):
            views[CaseId(case.tobytes().hex())] = one.images.views[row]
        owner |= {CaseId(case.tobytes().hex()): one.silo for case in cases}
        galleries[one.silo] = _opened(folder / f"{one.silo}.faiss", vectors[one.silo][rows], cases)
        stored.append((vectors[one.silo][rows], cases))
    pooled = _opened(folder / "pooled.faiss", *(np.concatenate(parts) for parts in zip(*stored, strict=True)))
    tally: dict[str, list[tuple[float, float]]] = {"precision_at_10": [], "map": [], "ndcg_at_10": []}
    same = tied = queries = 0
    for one in hospitals:
        for view, vector in zip(one.images.views, vectors[one.silo], strict=True):
            if view.split is not Split.HELD_OUT or not view.findings:
                continue
            both = (_federated(galleries, views, vector, one.silo), _pooled(pooled, vector, owner))
            queries += 1
            same += both[0] == both[1]
            tied += len({score for score, _, _ in both[1]}) < len(both[1])
            judged = [_judged(view, ranking, views) for ranking in both]
            for name, pair in tally.items():
                pair.append((judged[0][name], judged[1][name]))
    figures = [
        Figure("retrieval_queries", queries, "held-out images"),
        Figure("retrieval_gallery", len(views), f"images in {len(hospitals)} hospitals"),
        Figure("retrieval_tied", tied / max(1, queries), "of the queries, to which two cases are equally similar"),
        Figure("retrieval_same_rankings", same / max(1, queries), "of the queries, over the whole gallery"),
    ]
    for name, pairs in tally.items():
        federated, whole = (float(np.mean(values)) for values in zip(*pairs, strict=True))
        figures += [
            Figure(f"retrieval_{name}", federated, "federated"),
            Figure(f"retrieval_{name}_difference", abs(federated - whole), "from the pooled index"),
        ]
    return figures


def _opened(file: Path, vectors: NDArray[np.float32], cases: NDArray[np.uint8]) -> SearchableCases:
    if len(vectors) > MAX_HITS and file.stem != "pooled":
        raise ValueError(f"{len(vectors)} images of one hospital are more than one answer holds: use --limit")
    write_faiss(file, vectors)
    index = FaissGallery.open(file, cases)
    return SearchableCases("000001", ENCODER, index, sense_of(index, None))


def _federated(
    galleries: Mapping[str, SearchableCases], views: Mapping[CaseId, View], vector: NDArray[np.float32], asker: str
) -> Ranking:
    request = SearchRequest(
        issued_at_ms=0,
        budget_ms=1000,
        encoder_version=ENCODER,
        vector=unit_embedding(vector),
        k=MAX_HITS,
        purpose="teaching",
        asker=asker,
    )
    replies = [
        answer(request, gallery, silo=name, view_of=views.get, settings=SHOWS_ALL) for name, gallery in galleries.items()
    ]
    answers = [reply for reply in replies if isinstance(reply, SiloAnswer)]
    if len(answers) < len(galleries):
        raise ValueError("a hospital refused: it holds too few images")
    return [(hit.score, hit.silo, hit.case_id) for hit in merge(answers, len(views))]


def _pooled(pooled: SearchableCases, vector: NDArray[np.float32], owner: Mapping[CaseId, str]) -> Ranking:
    query = np.frombuffer(unit_embedding(vector), "<f4").astype(np.float32)  # as it travels
    hits = [(hit.score, owner[hit.case], hit.case) for hit in pooled.index.search(query, len(owner))]
    return sorted(hits, key=lambda hit: (-hit[0], hit[1], hit[2]))


def _judged(query: View, ranking: Ranking, views: Mapping[CaseId, View]) -> dict[str, float]:
    """Return a ranking's precision at ten, average precision and nDCG at ten; a hit is right if it shares a finding."""
    wanted = _present(query)
    right = np.array([bool(wanted & _present(views[case])) for _, _, case in ranking], np.float64)
    places = np.arange(1, len(right) + 1)
    gains = 1 / np.log2(places[:K] + 1)
    best = gains[: int(min(K, right.sum()))].sum()
    return {
        "precision_at_10": float(right[:K].mean()),
        "map": float((right * np.cumsum(right) / places).sum() / max(1.0, right.sum())),
        "ndcg_at_10": float((right[:K] * gains[: len(right[:K])]).sum() / best) if best else 0.0,
    }


def _present(view: View) -> frozenset[Finding]:
    present = frozenset(finding for finding, is_present in view.findings.items() if is_present)
    return present or frozenset({Finding.NO_FINDING})
