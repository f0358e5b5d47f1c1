"""How a federation of hundreds of silos would do: the real broker, asker and encrypted sums, over simulated silos.

A simulation, and it says so: all silos live in this process, each with its own certificate; a message is a call. What is
real is what has to bear the number: the broker's fan-out, deadline and merge, the asker's verification of every silo's
signature, and the protocol of a masked and encrypted sum, in which every silo deals a share of its secrets to every other.
CPU seconds of the simulated silos themselves are counted apart.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.aggregation import JOB, Stopwatch, begin, federation, identities
from benchmarks.harness import Figure, Target, main
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.sums import RoundSum
from silo_app.cases import CaseId
from silo_app.identity import Identity
from silo_app.policy.release import Card
from silo_app.search.broker import Broker
from silo_app.search.envelope import conceal, keys_for, peek_request, reveal, seal, seal_reply, unkeyed
from silo_app.search.messages import ReleasedHit, SearchRequest, SearchResult, SiloAnswer, unit_embedding
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.sealed import Broadcast, SealedRequest
from silo_app.search.transport import SiloLate
from silo_app.search.verified import verified
from silo_app.search.wire import decode, encode

DIMENSION = 256
ENCODER = "ab" * 32
K = 10
VALUES = 20_000
"""Of an update: what grows with the silos is not the network's size."""
BUDGET_MS = 30_000
HANGING_MS = 4000
FEW, MANY = 10, 300
SUM_OF_FEW, SUM_OF_MANY = 4, 40
SUM_OF_MANY_QUICKLY = 12
TARGETS = (
    Target("search_answered", 1.0, at_least=True),
    Target("search_equal_to_brute_force", 1.0, at_least=True),
    Target("search_silo_cost_growth", 1.5),
    Target("search_hanging_past_deadline_ms", 200.0),
    Target("search_hanging_named", 1.0, at_least=True),
    Target("sum_error", 1e-6),
    Target("sum_silo_cost_growth", 1.0),
)


class SimulatedSilos:
    """A transport to silos that answer with signed hits drawn for each query, or hang."""

    def __init__(self, members: Sequence[Identity], hanging: frozenset[str] = frozenset()) -> None:
        self._members = {member.name: member for member in members}
        self._hanging = hanging
        self._lock = threading.Lock()
        self.cpu_s = 0.0
        self.drawn: dict[str, list[tuple[float, str, str]]] = {}
        """By query: score, silo and case of every hit."""

    def ask(self, silo: str, message: bytes, budget_s: float) -> bytes:
        """Answer one request, or a parcel of them."""
        if silo in self._hanging:
            time.sleep(budget_s)
            raise SiloLate(silo)
        with self._lock:  # in turns: that silos fight for this one process is no cost of the broker's
            start = time.thread_time()
            if is_parcel(message):
                contents = [Content(one.number, self._answer(silo, one.body)) for one in unpack(message).contents]
                reply = pack(Parcel(tuple(contents)))
            else:
                reply = self._answer(silo, message)
            self.cpu_s += time.thread_time() - start
        return reply

    def _answer(self, silo: str, frame: bytes) -> bytes:
        signed, key = unkeyed(frame)
        request = peek_request(signed)
        if (
            isinstance(request, SealedRequest)
            and key is not None
            and reveal(self._members[silo], signed, request, key) is None
        ):
            raise ValueError(f"{silo} was given the key of another silo")
        random = np.random.default_rng([int(request.query_id[:8], 16), *silo.encode()])
        scores = np.sort(np.round(random.uniform(-1, 1, K), 2))[::-1]  # two decimals: ties between silos
        hits = tuple(ReleasedHit(case=random.bytes(16).hex(), score=float(one), card=Card()) for one in scores)
        self.drawn.setdefault(request.query_id, []).extend((hit.score, silo, hit.case) for hit in hits)
        answer = SiloAnswer(
            query_id=request.query_id, silo=silo, encoder_version=ENCODER, generation="1", indexed=1000, hits=hits
        )
        return seal_reply(self._members[silo], signed, answer)


def searched(members: Sequence[Identity], queries: int) -> tuple[dict[str, float], float]:
    """Ask so many queries of all silos, one at a time; return the figures, and the cost of one more silo in CPU ms."""
    silos, names = SimulatedSilos(members), [member.name for member in members]
    broker = Broker(silos, names, budget_ms=BUDGET_MS)
    random, asking, relayed, verifying, sizes, right, answered = np.random.default_rng(0), [], [], [], [], 0, 0
    for number in range(queries + 1):
        request = _request(members[0], random.standard_normal(DIMENSION), BUDGET_MS)
        start = time.process_time()
        signed, key = conceal(members[0], request)
        keys = keys_for(members[0], signed, key, names)  # of whom it knows: their first replies bring what it needs
        asked = encode(Broadcast(budget_ms=BUDGET_MS, frame=signed, keys=keys))
        concealing = time.process_time() - start
        start, own = time.process_time(), silos.cpu_s
        reply = broker.search(asked)
        spent = time.process_time() - start - (silos.cpu_s - own)
        start = time.process_time()
        result = verified(members[0], request, signed, decode(reply, SearchResult))
        if number == 0:
            continue  # threads start, vouchers are believed
        asking.append(concealing)
        relayed.append(spent)
        verifying.append(time.process_time() - start)
        sizes.append(len(reply))
        answered += result.answered
        right += [(hit.score, hit.silo, hit.case) for hit in result.hits] == _best(silos.drawn[request.query_id])
    broker.close()
    broker_ms, asker_ms = statistics.median(relayed) * 1e3, statistics.median(verifying) * 1e3
    asking_ms = statistics.median(asking) * 1e3
    figures = {
        "asking_ms": asking_ms,
        "broker_ms": broker_ms,
        "asker_ms": asker_ms,
        "result_kb": statistics.median(sizes) / 1e3,
        "answered": answered / (queries * len(members)),
        "equal": right / queries,
    }
    return figures, (asking_ms + broker_ms + asker_ms) / len(members)


def hanging(members: Sequence[Identity]) -> list[Figure]:
    """Ask while every tenth silo hangs: when the result comes, and whether it names them."""
    names = [member.name for member in members]
    gone = frozenset(names[::10])
    broker = Broker(SimulatedSilos(members, gone), names, budget_ms=HANGING_MS)
    request = _request(members[0], np.ones(DIMENSION), HANGING_MS)
    start = time.monotonic()
    result = broker.ask_all(seal(members[0], request))
    took_ms = (time.monotonic() - start) * 1e3
    broker.close()
    late = {report.silo for report in result.silos if report.state.value == "late"}
    return [
        Figure("search_hanging_past_deadline_ms", max(0.0, took_ms - HANGING_MS), f"ms, {len(gone)} of {len(names)} hang"),
        Figure("search_hanging_named", float(late == gone), "1: those who hang are late, and nobody else"),
    ]


def _request(asker: Identity, vector: NDArray[np.float64], budget_ms: int) -> SearchRequest:
    return SearchRequest(
        issued_at_ms=int(time.time() * 1000),
        budget_ms=budget_ms,
        encoder_version=ENCODER,
        vector=unit_embedding(vector.astype(np.float32)),
        k=K,
        purpose="care",
        asker=asker.name,
    )


def _best(drawn: list[tuple[float, str, str]]) -> list[tuple[float, str, CaseId]]:
    """Return the best of all hits by the rule of the merge, found by sorting everything."""
    ranked = sorted((-score, silo, case) for score, silo, case in drawn)[:K]
    return [(-score, silo, CaseId(case)) for score, silo, case in ranked]


def summed(silos: int) -> tuple[dict[str, float], float]:
    """Run a round of so many silos over a small update; return the figures, and what one silo spends in CPU s."""
    layout, random, watch = Layout(("w",), ((VALUES,),)), np.random.default_rng(0), Stopwatch()
    sessions = federation(layout, AggregationSettings(), [100] * silos)
    updates = random.normal(0.0, 1e-3, (silos, VALUES)).astype(np.float32)
    names, total, messages = [session.silo for session in sessions], RoundSum(JOB, 0), []
    begin(sessions, 0, watch)
    for session, update in zip(sessions, updates, strict=True):
        with watch.on("encrypt"):
            messages.append(session.encrypt_update(0, update))
    for message in messages:
        with watch.on("add"):
            total.add(message)
    result = total.result()
    with watch.on("agree"):
        signatures = {session.silo: session.sign_survivors(0, names) for session in sessions}
        reveals = {session.silo: session.reveal(0, signatures) for session in sessions}
    with watch.on("open"):
        opened = sessions[0].open_sum(0, result, total.contributors, reveals)
    assert opened.update is not None  # noqa: S101  (it was a round of updates)
    masks_s = sum(watch.spent["share"] + watch.spent["agree"]) / silos
    silo_s = masks_s + watch.median("encrypt") + watch.median("open")
    figures = {
        "silo_s": silo_s,
        "masks_s": masks_s,
        "server_add_ms": watch.median("add") * 1e3,
        "upload_kb": messages[0].nbytes / 1e3,
        "download_kb": result.nbytes / 1e3,
        "error": float(np.abs(opened.update - updates.mean(axis=0)).max()),
    }
    return figures, silo_s


_UNITS = {
    "asking_ms": "CPU ms a query, encrypting it and a key for each silo",
    "broker_ms": "CPU ms a query, the broker",
    "asker_ms": "CPU ms a query, verifying and merging",
    "result_kb": "kB to the asker",
    "silo_s": "CPU s a round and silo",
    "masks_s": "CPU s of it for masks and signatures",
    "server_add_ms": "CPU ms an update, the server",
    "upload_kb": f"kB an update of {VALUES:,} values",
    "download_kb": "kB a sum",
}


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Measure searches over ten silos and hundreds, then sums of a few and of dozens."""
    members, queries = identities(MANY), 2 if arguments.quick else 10
    few, small = searched(members[:FEW], 5 * queries)
    many, large = searched(members, queries)
    dozens = SUM_OF_MANY_QUICKLY if arguments.quick else SUM_OF_MANY
    little, low = summed(SUM_OF_FEW)
    much, high = summed(dozens)
    measured = {
        f"search_{FEW}_silos": few,
        f"search_{MANY}_silos": many,
        f"sum_{SUM_OF_FEW}_silos": little,
        f"sum_{dozens}_silos": much,
    }
    return [
        *(
            Figure(f"{name}_{what}", value, _UNITS[what])
            for name, figures in measured.items()
            for what, value in figures.items()
            if what in _UNITS
        ),
        Figure("search_answered", min(few["answered"], many["answered"]), "of the silos' replies"),
        Figure("search_equal_to_brute_force", min(few["equal"], many["equal"]), "of the queries"),
        Figure("search_silo_cost_growth", large / small, f"x, one silo of {MANY} beside one of {FEW}"),
        *hanging(members),
        Figure("sum_error", max(little["error"], much["error"]), "largest, of an update of about 0.001"),
        Figure(
            "sum_silo_cost_growth",
            high / low / (dozens / SUM_OF_FEW),
            f"x the number of silos, {dozens} beside {SUM_OF_FEW}",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main("scale", measure, TARGETS, describe=str(__doc__).splitlines()[0]))
