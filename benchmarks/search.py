"""What a search costs: a federation's queries over mutual TLS, an encrypted one over a silo's vectors, and merging.

The federation is real (`search_federation`). For the encrypted query, vectors are random unit vectors of 256 numbers in a
hundred clusters, and two of a silo's processes (FAISS; the scoring processes) run for real, without network and other
silos. CPU seconds are those of the process that works, so a busy machine spoils them little.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import search_federation
from benchmarks.harness import Figure, Target, main
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.policy.release import Card
from silo_app.search.merge import merge
from silo_app.search.messages import ReleasedHit, SiloAnswer
from silo_app.search.private.asker import Asking
from silo_app.search.private.blind import Rotations, prepare, score
from silo_app.search.private.order import new_seed, order_of
from silo_app.search.private.workers import Workers

DIMENSION = 256
NOISE = 0.0005
"""As `release.private.noise` is by default."""
TARGETS = (
    Target("private_10k_one_core_s", 0.15),
    Target("private_100k_one_core_s", 0.8),
    Target("private_100k_two_cores_s", 0.5),
    Target("private_first_upload_mb", 4.0),
    Target("private_100k_answer_mb", 2.5),
    Target("private_top10_overlap", 0.99, at_least=True),
    Target("merge_ms", 1.0),
    *search_federation.TARGETS,
)


def clustered(random: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Return unit vectors, float32 (count, DIMENSION)."""
    centres = random.standard_normal((100, DIMENSION), dtype=np.float32)
    vectors = centres[random.integers(0, 100, count)] + random.standard_normal((count, DIMENSION), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def one_core(vectors: NDArray[np.float32], queries: NDArray[np.float32], name: str) -> list[Figure]:
    """Score in this process."""
    seed, asking = new_seed(), Asking.begin(DIMENSION)
    start = time.process_time()
    gallery, rotations = prepare(vectors, seed), Rotations.of(asking.keys)
    prepared_s = time.process_time() - start
    spent, answer = [], 0
    for query in queries:
        asked = asking.ask(query)
        start = time.process_time()
        blocks = score(asked.ciphertext, rotations, gallery, noise=NOISE)
        spent.append(time.process_time() - start)
        answer = sum(map(len, blocks))
    return [
        Figure(f"private_{name}_prepare_s", prepared_s, "CPU s"),
        Figure(f"private_{name}_one_core_s", statistics.median(spent), "CPU s"),
        Figure(f"private_{name}_answer_mb", answer / 1e6, "MB"),
    ]


def two_cores(vectors: NDArray[np.float32], queries: NDArray[np.float32], folder: Path) -> list[Figure]:
    """Score in two processes, as a silo does; how near the answers are to a plain search."""
    file, seed, asking = folder / "vectors.npy", new_seed(), Asking.begin(DIMENSION)
    np.save(file, vectors, allow_pickle=False)
    order = order_of(len(vectors), seed)
    workers, spent, opening, found = Workers(2), [], [], 0
    workers.hold(file, seed)
    for number, query in enumerate(queries):
        asked = asking.ask(query)
        keys = b"" if number else asking.keys
        start = time.perf_counter()
        blocks = workers.score(file, seed, asked.ciphertext, "0" * 32, keys, noise=NOISE, timeout_s=60)
        spent.append(time.perf_counter() - start)
        start = time.process_time()
        scores = asking.open(blocks, len(vectors))
        opening.append(time.process_time() - start)
        found += len(np.intersect1d(order[np.argsort(-scores)[:10]], np.argsort(-(vectors @ query))[:10]))
    workers.close()
    upload = len(asking.keys) + len(asked.ciphertext)
    return [
        Figure("private_100k_two_cores_s", statistics.median(spent), "s, wall clock"),
        Figure("private_100k_open_s", statistics.median(opening), "CPU s"),
        Figure("private_first_upload_mb", upload / 1e6, "MB"),
        Figure("private_later_upload_mb", len(asked.ciphertext) / 1e6, "MB"),
        Figure("private_top10_overlap", found / (10 * len(queries)), f"of {len(queries)} queries"),
    ]


def plain(vectors: NDArray[np.float32], queries: NDArray[np.float32], folder: Path) -> list[Figure]:
    """Search the same vectors in the clear, exactly, on one thread."""
    cases = np.random.default_rng(0).integers(0, 256, (len(vectors), 16), dtype=np.uint8)
    write_faiss(folder / "gallery.faiss", vectors)
    gallery = FaissGallery.open(folder / "gallery.faiss", cases)
    spent = []
    for query in queries:
        start = time.perf_counter()
        gallery.search(query, 10)
        spent.append(time.perf_counter() - start)
    return [Figure("plain_100k_ms", statistics.median(spent) * 1e3, "ms, wall clock")]


def merging() -> Figure:
    """Merge the answers of ten silos with a hundred hits each."""
    random = np.random.default_rng(0)

    def hits() -> tuple[ReleasedHit, ...]:
        scores = np.sort(random.uniform(-1, 1, 100))[::-1]
        return tuple(ReleasedHit(case=random.bytes(16).hex(), score=float(value), card=Card()) for value in scores)

    answers = [
        SiloAnswer(query_id="0" * 32, silo=f"silo-{n}", encoder_version="ab" * 8, generation="1", indexed=1000, hits=hits())
        for n in range(10)
    ]
    spent = []
    for _ in range(200):
        start = time.perf_counter()
        merge(answers, 10)
        spent.append(time.perf_counter() - start)
    return Figure("merge_ms", statistics.median(spent) * 1e3, "ms, wall clock")


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Measure private queries over 10,000 and 100,000 vectors, then the federation."""
    random = np.random.default_rng(0)
    vectors = clustered(random, 100_000)
    queries = clustered(random, 10 if arguments.quick else 100)
    with tempfile.TemporaryDirectory() as folder:
        return [
            *one_core(vectors[:10_000], queries[:10], "10k"),
            *one_core(vectors, queries[:10], "100k"),
            *two_cores(vectors, queries, Path(folder)),
            *plain(vectors, queries, Path(folder)),
            merging(),
            *search_federation.federated(quick=arguments.quick),
        ]


if __name__ == "__main__":
    sys.exit(main("search", measure, TARGETS, describe=str(__doc__).splitlines()[0]))
