"""What a search costs: a federation's queries over mutual TLS, an encrypted one over a silo's vectors, and merging.

The federation is real (`search_federation`). For the encrypted query, vectors are random unit vectors of 256 numbers in a
hundred clusters, and two of a silo's processes (FAISS; the scoring processes) run for real, without network and other
silos. CPU seconds are those of the process that works, so a busy machine spoils them little.

With `--data`, the answers of three hospitals that divide a set of real radiographs are compared with those of one pooled
index (`search_retrieval`).
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import search_federation, search_retrieval
from benchmarks.harness import Figure, Target, main
from benchmarks.searching import cpu_seconds
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.policy.release import Card
from silo_app.search.merge import merge
from silo_app.search.messages import ReleasedHit, SiloAnswer
from silo_app.search.private.asker import Asking
from silo_app.search.private.blind import Rotations, prepare, score
from silo_app.search.private.order import new_seed, order_of
from silo_app.search.private.workers import Workers
from silo_app.settings.search import PrivateSettings

DIMENSION = 256
NOISE = PrivateSettings().noise
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


def two_cores(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> list[Figure]:
    """Score in two processes, as a silo does; how near the answers are to a plain search.

    Every query is scored twice. Without noise: what encryption and rounding cost in exactness. With it: what a silo's own
    protection against askers who solve for its vectors costs beside.
    """
    seed, asking = new_seed(), Asking.begin(DIMENSION)
    order = order_of(len(vectors), seed)
    workers, spent, busiest, opening = Workers(2), [], [], []
    found = {0.0: 0, NOISE: 0}
    workers.hold(lambda: vectors, seed)
    pids = [child.pid for child in psutil.Process().children()]
    for number, query in enumerate(queries):
        asked, nearest = asking.ask(query), np.argsort(-(vectors @ query))[:10]
        for noise in found:
            keys = asking.keys if number == 0 and noise == 0.0 else b""
            before, start = [cpu_seconds([pid]) for pid in pids], time.perf_counter()
            blocks = workers.score(lambda: vectors, seed, asked.ciphertext, "0" * 32, keys, noise=noise)
            spent.append(time.perf_counter() - start)
            busiest.append(max(cpu_seconds([pid]) - was for pid, was in zip(pids, before, strict=True)))
            start = time.process_time()
            scores = asking.open(blocks, len(vectors))
            opening.append(time.process_time() - start)
            found[noise] += len(np.intersect1d(order[np.argsort(-scores)[:10]], nearest))
    workers.close()
    upload = len(asking.keys) + len(asked.ciphertext)
    return [
        Figure("private_100k_two_cores_s", statistics.median(spent), "s, wall clock"),
        Figure("private_100k_busier_core_s", statistics.median(busiest), "CPU s of the busier of the two processes"),
        Figure("private_100k_open_s", statistics.median(opening), "CPU s"),
        Figure("private_first_upload_mb", upload / 1e6, "MB"),
        Figure("private_later_upload_mb", len(asked.ciphertext) / 1e6, "MB"),
        Figure("private_top10_overlap", found[NOISE] / (10 * len(queries)), f"of {len(queries)} queries, noise {NOISE:g}"),
        Figure("private_top10_overlap_without_noise", found[0.0] / (10 * len(queries)), "of as many"),
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
        start = time.process_time()
        merge(answers, 10)
        spent.append(time.process_time() - start)
    return Figure("merge_ms", statistics.median(spent) * 1e3, "CPU ms")


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Measure private queries over 10,000 and 100,000 vectors, the federation, and real radiographs if there are some."""
    retrieved: list[Figure] = []
    if arguments.data:  # first: what is wrong with the data shows before the long part
        retrieved = search_retrieval.retrieved(arguments.data, limit=200 if arguments.quick else arguments.limit)
    random = np.random.default_rng(0)
    vectors = clustered(random, 100_000)
    queries = clustered(random, 100)
    few = 3 if arguments.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            *one_core(vectors[:10_000], queries[:10], "10k"),
            *one_core(vectors, queries[:few], "100k"),
            *two_cores(vectors, queries[:few] if arguments.quick else queries),
            *plain(vectors, queries[:10], Path(folder)),
            merging(),
            *search_federation.federated(quick=arguments.quick),
        ]
    return figures + retrieved


def wanted(arguments: argparse.Namespace) -> tuple[Target, ...]:
    """Return the targets: of 100 private queries only in a full run, of real radiographs only where there are some."""
    quick = tuple(target for target in TARGETS if target.figure != "private_top10_overlap")
    targets = quick if arguments.quick else TARGETS
    return targets + (search_retrieval.TARGETS if arguments.data else ())


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="ZIP", help="real radiographs with labels.csv, for the pooled index")
    parser.add_argument("--limit", type=int, help="images of the ZIP; none of three hospitals may get more than 1,000")


if __name__ == "__main__":
    sys.exit(main("search", measure, wanted, describe=str(__doc__).splitlines()[0], options=_options))
