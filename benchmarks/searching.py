"""A real federation with synthetic galleries, asked over mutual TLS: latency, throughput, and what the way itself costs.

A server, its anchor and three silos on the loopback interface of this machine, as `consortium up` starts them. Galleries are
random unit vectors, five views a case, published as generations; every query is signed, verified, decided, audited.
"""

import contextlib
import functools
import math
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from silo_app import config
from silo_app.cases import CaseId, EncoderVersion, PatientKey, Split, ViewPosition
from silo_app.catalogue import Catalogue, ViewKeys, ViewRecord
from silo_app.catalogue.writing import CatalogueWriter as Writer
from silo_app.config import SiloHome
from silo_app.errors import SiloscopeError
from silo_app.index.generations import building, publish
from silo_app.search.ask import Asker, search_embedding
from silo_app.search.envelope import conceal, keys_for
from silo_app.search.messages import Relay, Relayed, SearchRequest, SearchResult, SiloState, unit_embedding
from silo_app.search.own import OwnSilo, with_own
from silo_app.search.parcels import Parcel, pack
from silo_app.search.sealed import Broadcast

__all__ = ["DIMENSION", "ENCODER", "Lab", "Load", "cpu_seconds", "memory_mb", "thread_count", "unit_vectors"]

DIMENSION = 256
SILOS = 3
ENCODER = EncoderVersion("ab" * 32)
UNLIMITED = dict.fromkeys(("queries_per_day", "user_queries_per_day", "similar_queries_per_day"), 10**9)
"""No day of a hospital has as many queries as a minute of a benchmark."""
RELEASE = UNLIMITED | {"same_patient": "show", "same_patient_purposes": ["teaching"]}
"""Queries for care are guarded, as everywhere; for teaching everything is shown, as a pooled index would."""
_VIEWS_OF_A_CASE = 5
_BLOCK = 100_000
_READY_S = 60.0


def unit_vectors(seed: int, count: int) -> NDArray[np.float32]:
    """Return random unit vectors, float32 (count, DIMENSION)."""
    random = np.random.default_rng(seed)
    vectors = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, _BLOCK):
        block = random.standard_normal((min(_BLOCK, count - start), DIMENSION), dtype=np.float32)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


@dataclass
class Load:
    """What many queries took."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    """Seconds, of each query."""
    states: dict[str, int] = field(default_factory=dict)
    """How often silos were in which state; "error" where there was no result at all."""

    @property
    def rate(self) -> float:
        """Queries a second."""
        return len(self.latencies) / self.seconds

    @property
    def complete(self) -> float:
        """The share of silos' replies that were answers."""
        return self.states.get("answered", 0) / max(1, sum(self.states.values()))

    def percentile(self, share: int) -> float:
        """Return a percentile of the latencies, milliseconds."""
        return float(np.percentile(self.latencies, share)) * 1e3


@dataclass
class Lab:
    """A running federation whose silos hold `views` vectors each."""

    federation: Federation
    views: int

    @classmethod
    @contextmanager
    def running(cls, root: Path, views: int) -> Iterator["Lab"]:
        """Provision, fill and start it in `root`, with a search job that is kept running, and end it all with the block."""
        silos = [{"name": f"hospital-{letter}", "release": RELEASE} for letter in "abc"[:SILOS]]
        content = {
            "name": "bench",
            "server": {"port": 0},
            "silos": silos,
            "researchers": [{"name": "lead@bench.example"}],
            "keep": ["search"],
        }
        kits.provision(Consortium.model_validate(content), root / "consortium")
        lab = cls(Federation.load(root / "consortium"), views)
        for number, silo in enumerate(lab.federation.silos):
            stock(lab.home(silo), number + 1, views)
        try:
            lab.federation.up()
            lab.await_answers()
            yield lab
        finally:
            lab.federation.down()

    def home(self, silo: str) -> SiloHome:
        """Return a silo's home."""
        return config.load(self.federation.kit(silo))

    def refill(self, views: int) -> None:
        """Publish another generation in every silo, of so many vectors."""
        self.views = views
        for number, silo in enumerate(self.federation.silos):
            stock(self.home(silo), number + 1, views)
            self.federation.stop(f"{silo}.index")
            self.federation.start(f"{silo}.index")
        self.await_answers()

    def askers(self) -> list[Asker]:
        """Return an asker of every silo."""
        return [Asker.of(self.home(silo)) for silo in self.federation.silos]

    @functools.cached_property
    def asker(self) -> Asker:
        """The asker of the first silo; it keeps its connections, as a hospital's search service does."""
        return self.askers()[0]

    def load(self, queries: NDArray[np.float32], in_flight: int) -> Load:
        """Ask all queries from one silo, so many at a time; silos have the time that the search job gives."""
        asker = self.asker

        def ask(vector: NDArray[np.float32]) -> list[str]:
            result = search_embedding(asker, vector, encoder_version=ENCODER)
            return [report.state.value for report in result.silos]

        return _loaded(queries, in_flight, ask)

    def trip(self) -> float:
        """Pass an empty message to one silo's index process and back, as a query goes but for its work; seconds."""
        relay = Relay(silo=self.federation.silos[-1], budget_ms=5000, frame=pack(Parcel()))
        start = time.perf_counter()
        if self.asker.exchange(relay, Relayed, 5000).state is not SiloState.ANSWERED:
            raise TimeoutError("a silo is not there")
        return time.perf_counter() - start

    @contextmanager
    def standing_in(self) -> Iterator[Callable[[], float]]:
        """Have all index processes stood in for (`stand_in`) within the block; give what asks them all, and returns seconds.

        The asker's own is asked on its socket, as always; the others with one message to the broker. Infinite if one is
        missing.
        """
        own, *others = self.federation.silos
        request = SearchRequest(
            issued_at_ms=int(time.time() * 1000),
            budget_ms=5000,
            encoder_version=ENCODER,
            vector=unit_embedding(unit_vectors(7, 1)[0]),
            k=10,
            purpose="care",
            asker=own,
        )
        signed, key = conceal(self.asker.identity, request)
        keys = keys_for(self.asker.identity, signed, key, others)
        question = Broadcast(budget_ms=5000, frame=signed, keys=keys, without=own)
        at_hand = OwnSilo(own, self.home(own).index_socket)

        def ask() -> float:
            start = time.perf_counter()
            begun = at_hand.begin(signed, 5000)
            result = with_own(self.asker.exchange(question, SearchResult, 5000), begun.result())
            took = time.perf_counter() - start
            answered = [report.silo for report in result.silos if report.state is SiloState.ANSWERED]
            return took if answered == self.federation.silos else math.inf

        with contextlib.closing(at_hand), contextlib.ExitStack() as stack:
            for silo in self.federation.silos:
                self.federation.stop(f"{silo}.index")
                stack.callback(self.federation.start, f"{silo}.index")
            for silo in self.federation.silos:
                stack.enter_context(_standing_in(self.federation.kit(silo)))
            _await(lambda: ask() < math.inf, "the stand-ins do not answer")
            yield ask
        self.await_answers()

    def pids(self) -> list[int]:
        """Return all processes of the federation now."""
        return [*self.asked_pids(), *self.federation.pids(self.federation.consortium.anchor)]

    def asked_pids(self) -> list[int]:
        """Return the processes that queries pass through.

        The anchor's do not: its job process asks the server for tasks, and NVFlare 2.9 keeps a thread of each of these
        questions for a minute, whether anybody searches or not.
        """
        return [pid for name in (self.federation.server, *self.federation.silos) for pid in self.federation.pids(name)]

    def parts(self) -> dict[str, list[int]]:
        """Return the processes that a query passes through, and this one, which asks, by what they do."""
        indexes = [pid for silo in self.federation.silos for pid in self.federation.pids(f"{silo}.index")]
        server = self.federation.pids(self.federation.server)
        sites = [pid for pid in self.asked_pids() if pid not in indexes + server]
        return {"index": indexes, "site": sites, "server": server, "asker": [os.getpid()]}

    def await_answers(self) -> None:
        """Wait until every silo asks, and all answer from the generation in use."""
        (query,) = unit_vectors(99, 1)
        _await(lambda: all(self._indexed(asker, query) == self._cases for asker in self.askers()), "the silos do not answer")

    @staticmethod
    def _indexed(asker: Asker, query: NDArray[np.float32]) -> int:
        try:
            result = search_embedding(asker, query, encoder_version=ENCODER)
        except SiloscopeError:
            return 0
        return 0 if result.unheard else min(report.indexed for report in result.silos)

    @property
    def _cases(self) -> int:
        return -(-self.views // _VIEWS_OF_A_CASE)


@contextmanager
def _standing_in(kit: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.stand_in", str(kit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # ends with its input
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("a stand-in did not start")
        yield


def _await(is_there: Callable[[], bool], problem: str) -> None:
    end = time.monotonic() + _READY_S
    while not is_there():
        if time.monotonic() > end:
            raise TimeoutError(problem)
        time.sleep(0.5)


def stock(home: SiloHome, seed: int, views: int) -> None:
    """Give a silo a catalogue with cases enough, and a generation of so many views."""
    needed = -(-views // _VIEWS_OF_A_CASE)
    home.catalogue.parent.mkdir(parents=True, exist_ok=True)
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        known = [view.case for view in catalogue.views()]
        known += [_add_case(writer) for _ in range(needed - len(known))]
    with building(home.index):
        publish(
            home.index,
            vectors=unit_vectors(seed, views),
            cases=[known[row // _VIEWS_OF_A_CASE] for row in range(views)],
            digests=[f"{row:064x}" for row in range(views)],
            encoder_version=ENCODER,
        )


def _add_case(writer: Writer) -> CaseId:
    digest = secrets.token_hex(32)
    keys = ViewKeys(
        instance=digest, study=digest, study_uid=digest, accession="", patient=PatientKey(digest), patient_id=digest
    )
    return writer.add_view(
        ViewRecord(digest=digest, keys=keys, split=Split.TRAIN, position=ViewPosition.PA, age=40, device="synthetic")
    )


def _loaded(queries: NDArray[np.float32], in_flight: int, ask: Callable[[NDArray[np.float32]], list[str]]) -> Load:
    waiting, lock = iter(queries), threading.Lock()
    load = Load(0.0)

    def work() -> None:
        while True:
            with lock:
                query = next(waiting, None)
            if query is None:
                return
            start = time.perf_counter()
            try:
                states = ask(query)
            except SiloscopeError:
                states = ["error"] * SILOS
            took = time.perf_counter() - start
            with lock:
                load.latencies.append(took)
                for state in states:
                    load.states[state] = load.states.get(state, 0) + 1

    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - start
    return load


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds of processes so far."""
    return sum(_of(pid, lambda process: sum(process.cpu_times()[:2])) for pid in pids)


def thread_count(pids: list[int]) -> int:
    """Return how many threads processes have."""
    return int(sum(_of(pid, lambda process: process.num_threads()) for pid in pids))


def memory_mb(pids: list[int]) -> float:
    """Return the unshared memory of processes."""
    return sum(_of(pid, lambda process: process.memory_full_info().uss) for pid in pids) / 1e6


def _of(pid: int, figure: Callable[[psutil.Process], float]) -> float:
    try:
        return figure(psutil.Process(pid))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
