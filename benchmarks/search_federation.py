"""The federation's part of `benchmarks.search`: real processes over mutual TLS, beside bare FAISS, milvus-lite and the way.

Queries of one at a time, messages that carry nothing, and searches of the silos' own indexes take turns, so that whatever
else the machine does disturbs all of them alike.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Figure, Target
from benchmarks.searching import ENCODER, SILOS, Lab, Load, cpu_seconds, memory_mb, thread_count, unit_vectors
from silo_app.cases import CaseId
from silo_app.collector import settle
from silo_app.index.faiss_gallery import FaissGallery, write_faiss
from silo_app.index.gallery import GalleryIndex
from silo_app.index.generations import open_current
from silo_app.search.ask import search_embedding
from silo_app.search.messages import unit_embedding
from silo_app.settings.search import MilvusSettings

__all__ = ["TARGETS", "federated"]

TARGETS = (
    Target("federation_10k_over_floor_ms", 2.0),
    Target("federation_10k_32_in_flight_rate", 300.0, at_least=True),
    Target("federation_10k_equal_to_pooled", 1.0, at_least=True),
    Target("federation_10k_answered", 1.0, at_least=True),
    Target("federation_threads_growth", 8.0),
    Target("federation_memory_growth", 3.0),
)
_K = 10
_COMPARED = 20
_SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}


def federated(*, quick: bool) -> list[Figure]:
    """Measure galleries of 10,000 vectors a silo; in a full run also of 100,000 and a million, and 10,000 queries."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="search-") as folder, Lab.running(Path(folder), _SIZES["10k"]) as lab:
        settle()  # as `silo desk` does, which asks for a hospital
        figures += _sized(lab, "10k", Path(folder), quick=quick)
        figures += [_least(lab, 100 if quick else 400), *_lasting(lab, 300 if quick else 10_000)]
        for name in () if quick else ("100k", "1m"):
            lab.refill(_SIZES[name])
            figures += _sized(lab, name, Path(folder), quick=quick)
    return figures


def _sized(lab: Lab, name: str, folder: Path, *, quick: bool) -> list[Figure]:
    """Measure one size of gallery."""
    small = quick or name == "1m"
    lab.load(unit_vectors(11, 60), 8)  # warm
    figures = [*_alone(lab, name, 40 if small else 200)]
    for in_flight, count in ((8, 100 if small else 1000), (32, 500 if small else 3000)):
        called = f"federation_{name}_{in_flight}_in_flight"
        load, cpu = _loaded(lab, called, unit_vectors(in_flight, count), in_flight)
        figures += [*_of_load(called, load), cpu]
    figures.append(Figure(f"federation_{name}_answered", load.complete, "of the silos' replies, 32 in flight"))
    return figures + _beside(lab, name, folder, milvus=not (quick or name == "1m"))


def _alone(lab: Lab, name: str, count: int) -> list[Figure]:
    """Measure one query in flight, the way without it, and the silos' indexes without the way, in turns."""
    galleries = [open_current(lab.home(silo).index).gallery for silo in lab.federation.silos]
    queries, whole, trips = unit_vectors(1, count), Load(0.0), []
    parts = _by_part(lab, f"federation_{name}_1_in_flight", lambda: lab.load(queries, 1), count)
    parts += _by_part(lab, f"message_{name}", lambda: [lab.trip() for _ in queries], count)
    searches: list[list[float]] = [[] for _ in galleries]
    for query in queries:
        one = lab.load(query[None, :], 1)
        whole.seconds += one.seconds
        whole.latencies += one.latencies
        trips.append(lab.trip())
        for gallery, spent in zip(galleries, searches, strict=True):
            spent.append(_timed(gallery, query))
    silo, trip = max(map(statistics.median, searches)) * 1e3, statistics.median(trips) * 1e3
    return [
        *_of_load(f"federation_{name}_1_in_flight", whole),
        *parts,
        Figure(f"silo_faiss_{name}_ms", silo, "ms, the slowest silo's index"),
        Figure("message_floor_ms" if name == "10k" else f"message_floor_{name}_ms", trip, "ms, an empty message"),
        Figure(f"federation_{name}_over_floor_ms", whole.percentile(50) - silo - trip, "ms more than both"),
    ]


def _least(lab: Lab, count: int) -> Figure:
    """Measure the least that a search of three silos costs, two of which are asked with messages, whoever writes it.

    They search and reply; nothing is signed, verified, decided, counted, written down or merged.
    """
    silo = open_current(lab.home(lab.federation.silos[-1]).index).gallery
    asked, trips, searches = [], [], []
    with lab.standing_in() as ask:
        for query in unit_vectors(1, count):
            asked.append(ask())
            trips.append(lab.trip())
            searches.append(_timed(silo, query))
    over = statistics.median(asked) - statistics.median(trips) - statistics.median(searches)
    return Figure("federation_10k_least_over_floor_ms", over * 1e3, "ms more than both, of silos that only search")


def _by_part(lab: Lab, name: str, work: Callable[[], object], count: int) -> list[Figure]:
    """Measure the CPU time of work that is done so many times, one at a time: of each kind of process, and of all."""
    parts = lab.parts()
    before = {part: cpu_seconds(pids) for part, pids in parts.items()}
    work()
    spent = {part: (cpu_seconds(pids) - before[part]) / count * 1e3 for part, pids in parts.items()}
    return [
        *(Figure(f"{name}_cpu_ms_{part}", value, "CPU ms, all processes of this kind") for part, value in spent.items()),
        Figure(f"{name}_cpu_ms", sum(spent.values()), "CPU ms, all that it passes through and the asker"),
    ]


def _loaded(lab: Lab, name: str, queries: NDArray[np.float32], in_flight: int) -> tuple[Load, Figure]:
    """Ask queries, so many at a time; return what they took, and the CPU time of one."""
    pids = [*lab.pids(), os.getpid()]  # what two cores have to bear; to find them costs more than a query
    before = cpu_seconds(pids)
    load = lab.load(queries, in_flight)
    spent = (cpu_seconds(pids) - before) / len(queries) * 1e3
    return load, Figure(f"{name}_cpu_ms", spent, "CPU ms a query, all processes and the asker's")


def _of_load(name: str, load: Load) -> list[Figure]:
    figures = [Figure(f"{name}_p{share}_ms", load.percentile(share), "ms") for share in (50, 95, 99)]
    return [*figures, Figure(f"{name}_rate", load.rate, "queries a second")]


def _lasting(lab: Lab, count: int) -> list[Figure]:
    """Ask many queries; threads and memory of all processes before and after."""
    lab.load(unit_vectors(21, max(300, count // 10)), 64)  # pools fill, beyond what is measured
    pids = lab.asked_pids()
    threads, memory, before = thread_count(pids), memory_mb(pids), cpu_seconds(pids)
    load = lab.load(unit_vectors(22, count), 8)
    spent, more = cpu_seconds(pids) - before, thread_count(pids) - threads
    return [
        Figure("federation_threads_growth", more, f"threads more of {threads}, {count} queries"),
        Figure("federation_memory_growth", 100 * (memory_mb(pids) / memory - 1), f"% of {memory:.0f} MB, {count} queries"),
        Figure("federation_cpu_ms", spent / len(load.latencies) * 1e3, "CPU ms a query; not of the anchor and the asker"),
    ]


def _beside(lab: Lab, name: str, folder: Path, *, milvus: bool) -> list[Figure]:
    """Measure the pooled vectors in one index, and compare what the federation answers with it."""
    vectors = np.concatenate([unit_vectors(number + 1, lab.views) for number in range(SILOS)])
    galleries = [open_current(lab.home(silo).index).gallery for silo in lab.federation.silos]
    cases = np.concatenate([_cases_of(gallery, lab.views) for gallery in galleries])
    write_faiss(folder / "pooled.faiss", vectors)
    pooled = FaissGallery.open(folder / "pooled.faiss", cases)
    queries = np.stack(
        [np.frombuffer(unit_embedding(query), "<f4") for query in unit_vectors(31, _COMPARED)]
    )  # as they travel
    figures = [
        Figure(f"pooled_faiss_{name}_ms", statistics.median(_timed(pooled, query) for query in queries) * 1e3, "ms"),
        Figure(f"federation_{name}_equal_to_pooled", _equal(lab, pooled, queries), f"of {_COMPARED} queries"),
    ]
    return figures + (_in_milvus(name, vectors, cases, folder, queries) if milvus else [])


def _in_milvus(
    name: str, vectors: NDArray[np.float32], cases: NDArray[np.uint8], folder: Path, queries: NDArray[np.float32]
) -> list[Figure]:
    from silo_app.index.milvus_gallery import MilvusGallery, write_milvus

    settings = MilvusSettings(uri=f"milvus-{name}.db")
    collection = write_milvus(settings, folder, "pooled", vectors)
    gallery = MilvusGallery.open(settings, folder, collection, vectors.shape[1], cases)
    return [Figure(f"milvus_lite_{name}_ms", statistics.median(_timed(gallery, query) for query in queries) * 1e3, "ms")]


def _cases_of(gallery: GalleryIndex, views: int) -> NDArray[np.uint8]:
    """Return the case of each row, uint8 (n, 16)."""
    return np.frombuffer(bytes.fromhex("".join(gallery.case_of(row) for row in range(views))), np.uint8).reshape(views, 16)


def _equal(lab: Lab, pooled: GalleryIndex, queries: NDArray[np.float32]) -> float:
    """Return the share of queries to which the federation's hits are the pooled index's, to the last digit.

    They are asked for a purpose for which no case is kept back as the query's own patient's.
    """
    asker, same = lab.asker, 0
    for query in queries:
        result = search_embedding(asker, query, encoder_version=ENCODER, k=_K, purpose="teaching", budget_ms=5000)
        found = [(CaseId(hit.case), hit.score) for hit in result.hits]
        same += sorted(found) == sorted((hit.case, hit.score) for hit in pooled.search(query, _K))
    return same / len(queries)


def _timed(gallery: GalleryIndex, query: NDArray[np.float32]) -> float:
    start = time.perf_counter()
    gallery.search(query, _K)
    return time.perf_counter() - start
