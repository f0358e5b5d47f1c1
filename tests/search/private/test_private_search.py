"""A private search over real index processes, and what becomes of it when silos refuse, fail or cheat."""

import json
import os
import signal
import time

import numpy as np
import pytest

from silo_app.errors import NotReady
from silo_app.policy.refusal import RefusalCode
from silo_app.search import local
from silo_app.search.ask import Asker, search_embedding
from silo_app.search.broker import Broker
from silo_app.search.envelope import open_reply, seal
from silo_app.search.messages import Refusal, Relay, Relayed, Silos, SiloState, Who
from silo_app.search.private.ask import PrivateSession
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer
from silo_app.search.server import IndexProcess
from silo_app.search.transport import SiloUnreachable
from silo_app.search.wire import decode, encode

ENCODER = "ab" * 32
NAMES = ("north", "south", "westward")
OPEN = "release: {same_patient: show, private: {answer: true, noise: 0, processes: 1}}\n"


class SocketTransport:
    """What the gateways do, without NVFlare; `handlers` stand in for silos that misbehave, `seen` holds what passed."""

    def __init__(self, silos):
        self.silos, self.handlers, self.seen = silos, {}, []

    def ask(self, silo, message, budget_s):
        self.seen.append(message)
        if silo in self.handlers:
            return self.handlers[silo](message)
        reply = local.exchange(self.silos[silo].home.index_socket, message, budget_s)
        self.seen.append(reply)
        return reply


@pytest.fixture
def federation(stocked):
    """Make silos with index processes, a broker and `north`'s gateway, given each silo's configuration."""
    opened = []

    def make(**configs):
        silos = {name: stocked(name, studies=2, config=configs.get(name, OPEN)) for name in NAMES}
        processes = {}
        for name, silo in silos.items():
            silo.index()
            processes[name] = IndexProcess(silo.home)
            processes[name].start()
        transport = SocketTransport(silos)
        broker = Broker(transport, tuple(silos), budget_ms=20_000)  # however busy the machine is
        gateway = local.FrameServer(silos["north"].home.gateway_socket, broker.search)
        gateway.start()
        opened.extend([gateway, broker, *processes.values()])
        return silos, transport, processes

    yield make
    for part in opened:
        part.close()


@pytest.fixture
def session():
    def begin(silos, dimension=16):
        return PrivateSession(Asker.of(silos["north"].home), ENCODER, dimension)

    return begin


def any_vector(silos, seed=0):
    vectors = list(silos["south"].vectors.values())
    return vectors[seed % len(vectors)]


def states(result):
    return {report.silo: (report.state.value, report.code) for report in result.silos}


def plainly(silos, vector, k):
    return search_embedding(Asker.of(silos["north"].home), vector, encoder_version=ENCODER, k=k, budget_ms=20_000)


def require_same(found, wanted, known):
    """Require a private ranking to be a plain one: equally similar in every place, and each hit what it is there.

    Silos here have the same vectors. The own one's similarities are exact and the others' nearly so: equals change places.
    """
    assert len(found) == len(wanted)
    assert np.allclose([hit.score for hit in found], [hit.score for hit in wanted], atol=1e-3)
    for hit in found:
        assert known[hit.silo, hit.case].card == hit.card
        assert known[hit.silo, hit.case].score == pytest.approx(hit.score, abs=1e-3)


def test_it_finds_what_a_plain_search_finds(federation, session):
    silos, _, _ = federation()
    private = session(silos)
    for seed in range(3):
        vector = any_vector(silos, seed)
        blind, plain = private.search(vector, k=7), plainly(silos, vector, 7)
        known = {(hit.silo, hit.case): hit for hit in plainly(silos, vector, 60).hits}
        require_same(blind.hits, plain.hits, known)
        assert states(blind) == dict.fromkeys(NAMES, ("answered", ""))
        assert [report.indexed for report in blind.silos] == [20, 20, 20]


def test_what_other_hospitals_have_behind_the_nearest_is_found_as_a_plain_search_finds_it(federation, session):
    silos, _, _ = federation()
    vector = next(iter(silos["north"].vectors.values()))  # near to own cases
    blind, plain = session(silos).search(vector, k=5), plainly(silos, vector, 5)
    assert plain.elsewhere
    known = {(hit.silo, hit.case): hit for hit in plainly(silos, vector, 60).hits}
    require_same(blind.hits, plain.hits, known)
    require_same(blind.elsewhere, plain.elsewhere, known)


def test_the_own_silo_is_asked_plainly_and_on_its_own_machine(federation, session):
    """Whatever it answers other hospitals, and with exact similarities; nothing of it passes the broker."""
    silos, transport, _ = federation(north="")
    asked, transport.handlers["north"] = [], lambda message: asked.append(message) or b""
    vector = next(iter(silos["north"].vectors.values()))
    result = session(silos).search(vector, k=5)
    assert states(result) == dict.fromkeys(NAMES, ("answered", ""))
    own = {hit.case: hit.score for hit in result.hits if hit.silo == "north"}
    assert own
    assert own.items() <= {hit.case: hit.score for hit in plainly(silos, vector, 60).hits if hit.silo == "north"}.items()
    assert asked == []


def gone(_message):
    raise SiloUnreachable


def test_without_a_broker_the_own_cases_are_found_and_why_the_others_are_not(federation, session):
    silos, _, processes = federation()
    private = session(silos)
    vector = any_vector(silos)
    silos["north"].home.gateway_socket.unlink()
    result = private.search(vector, k=5)
    assert states(result) == {"north": ("answered", "")}
    assert len(result.hits) == 5
    assert "gateway" in result.unheard
    processes["north"].close()
    with pytest.raises(NotReady, match="gateway"):
        private.search(vector, k=5)


def test_an_own_silo_that_is_not_there_costs_its_own_cases(federation, session):
    silos, transport, processes = federation()
    processes["north"].close()
    transport.handlers["north"] = gone
    result = session(silos).search(any_vector(silos), k=5)
    assert states(result) | {"north": ()} == {"north": (), "south": ("answered", ""), "westward": ("answered", "")}
    assert states(result)["north"][0] == "unreachable"
    assert "silo serve" in next(report.public for report in result.silos if report.silo == "north")
    assert len(result.hits) == 5


def test_nobody_on_the_way_sees_the_query(federation, session):
    silos, transport, _ = federation()
    vector = any_vector(silos)
    session(silos).search(vector, k=5, user="dr.secret", purpose="research")
    passed = b"".join(transport.seen)
    assert len(passed) > 300_000
    for word in (b"dr.secret", b"research", b"slots", b"alike", b"ciphertext"):
        assert word not in passed
    for secret in (vector.astype("<f4").tobytes(), vector.astype("<f8").tobytes(), vector.astype("<f2").tobytes()):
        assert secret not in passed
    transport.seen.clear()
    search_embedding(
        Asker.of(silos["north"].home), vector, encoder_version=ENCODER, k=5, budget_ms=20_000
    )  # silos read a plain one
    passed = b"".join(transport.seen)
    assert transport.seen
    assert (vector / np.linalg.norm(vector.astype(np.float64))).astype("<f4").tobytes() not in passed


def test_keys_travel_once_a_session(federation, session):
    silos, transport, _ = federation()
    private = session(silos)
    private.search(any_vector(silos))
    first = sum(map(len, transport.seen))
    transport.seen.clear()
    private.search(any_vector(silos, 1))
    assert sum(map(len, transport.seen)) < first - 3 * 700_000


def test_a_silo_that_was_started_again_gets_the_keys_again(federation, session):
    silos, _, processes = federation()
    private = session(silos)
    private.search(any_vector(silos))
    processes["south"].close()
    again = IndexProcess(silos["south"].home)
    again.start()
    try:
        assert states(private.search(any_vector(silos, 1))) == dict.fromkeys(NAMES, ("answered", ""))
    finally:
        again.close()


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ("", ("denied", "private-not-answered")),
        ("release: {min_similarity: 0.2, private: {answer: true}}\n", ("denied", "private-not-answered")),
        ("release: {private: {answer: true, max_views: 5}}\n", ("denied", "private-not-answered")),
        ("release: {private: {answer: true, queries_per_day: 0}}\n", ("denied", "budget-spent")),
        ("release: {answer_queries: false, private: {answer: true}}\n", ("denied", "not-answering")),
        ("release: {askers: [westward], private: {answer: true}}\n", ("denied", "asker-not-allowed")),
        ("release: {purposes: [research], private: {answer: true}}\n", ("denied", "purpose-not-allowed")),
        ("release: {min_gallery: 21, private: {answer: true}}\n", ("denied", "gallery-too-small")),
    ],
)
def test_each_silo_decides_for_itself(federation, session, config, state):
    silos, _, _ = federation(south=config)
    result = session(silos).search(any_vector(silos), k=5)
    assert states(result) == {"north": ("answered", ""), "south": state, "westward": ("answered", "")}
    assert {hit.silo for hit in result.hits} <= {"north", "westward"}


def test_the_budget_is_counted_over_restarts(federation, session):
    silos, _, processes = federation(
        south="release: {same_patient: show, private: {answer: true, queries_per_day: 2, processes: 1}}\n"
    )
    session(silos).search(any_vector(silos))
    session(silos).search(any_vector(silos))
    processes["south"].close()
    again = IndexProcess(silos["south"].home)
    again.start()
    try:
        assert states(session(silos).search(any_vector(silos)))["south"] == ("denied", "budget-spent")
    finally:
        again.close()


def test_an_encoder_that_a_silo_does_not_have_is_named(federation, session):
    silos, _, _ = federation()
    result = session(silos, dimension=8).search(np.eye(8, dtype=np.float32)[0])
    assert set(states(result).values()) == {("other-encoder", "other-encoder")}


def test_no_more_cases_are_shown_than_the_policy_allows(federation, session):
    silos, _, _ = federation(
        south="release: {same_patient: show, max_hits: 2, private: {answer: true, noise: 0, processes: 1}}\n"
    )
    result = session(silos).search(any_vector(silos), k=30)
    assert sum(hit.silo == "south" for hit in result.hits) == 2


def test_a_recalled_study_is_not_shown(federation, session):
    silos, _, _ = federation()
    digest, vector = next(iter(silos["westward"].vectors.items()))
    private = session(silos)
    nearest = private.search(vector, k=1).hits[0]
    silos["westward"].recall(digest)
    assert nearest.case not in {hit.case for hit in private.search(vector, k=20).hits}


def test_a_killed_scoring_process_costs_one_answer(federation, session):
    silos, _, processes = federation()
    private = session(silos)
    private.search(any_vector(silos))
    for worker in processes["south"]._private._workers._running:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert states(private.search(any_vector(silos)))["south"][0] in {"answered", "busy"}
    assert states(private.search(any_vector(silos)))["south"] == ("answered", "")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense",
        encode(Refusal.of("north", RefusalCode.INTERNAL)),
        encode(
            PrivateAnswer(
                query_id="0" * 32,
                silo="south",
                encoder_version=ENCODER,
                generation="1",
                indexed=1,
                indexed_views=1,
                views=1,
                most=20,
                blocks=(b"x",),
            )
        ),
    ],
    ids=["nothing", "noise", "another silo's refusal", "an answer to another query"],
)
def test_a_silo_that_talks_nonsense_costs_its_own_hits(federation, session, reply):
    silos, transport, _ = federation()
    transport.handlers["south"] = lambda _message: reply
    result = session(silos).search(any_vector(silos), k=5)
    assert states(result)["south"][0] == "invalid"
    assert states(result)["north"] == ("answered", "")
    assert len(result.hits) == 5


def test_cards_are_given_once_and_to_whom_the_scores_were_given(federation, stocked, session):
    silos, _, _ = federation()
    socket = silos["south"].home.index_socket
    session(silos).search(any_vector(silos), k=3)
    records = [json.loads(line) for line in silos["south"].home.audit.read_text().splitlines()]
    scored = next(record["query"] for record in records if record["event"] == "scored")

    def cards(asker, **fields):
        known = {
            "issued_at_ms": int(time.time() * 1000),
            "budget_ms": 1000,
            "purpose": "care",
            "asker": asker,
            "scored": scored,
            "silo": "south",
            "slots": (0,),
            "alike": (False,),
        }
        frame = seal(stocked.federation.identity(asker), CardsRequest(**(known | fields)))
        reply = local.exchange(socket, frame, 10)
        return open_reply(stocked.federation.identity(asker), "south", frame, reply, CardsAnswer, Refusal)

    assert cards("north").code is RefusalCode.STALE  # the search took them
    assert cards("westward").code is RefusalCode.STALE
    assert cards("north", scored="0" * 32).code is RefusalCode.STALE
    assert cards("north", silo="westward").code is RefusalCode.MESSAGE_INVALID


def test_a_private_request_that_somebody_else_signed_is_refused(federation, stocked, session):
    silos, _, _ = federation()
    request = CardsRequest(
        issued_at_ms=1, budget_ms=1, purpose="care", asker="north", scored="0" * 32, silo="south", slots=(0,), alike=(False,)
    )
    frame = seal(stocked.federation.identity("westward"), request)
    reply = local.exchange(silos["south"].home.index_socket, frame, 10)
    reply = open_reply(stocked.federation.identity("westward"), "south", frame, reply, CardsAnswer, Refusal)
    assert reply.code is RefusalCode.SIGNATURE_INVALID


def test_both_ends_write_down_what_was_asked(federation, session):
    silos, _, _ = federation()
    session(silos).search(any_vector(silos), k=3)
    answering = [json.loads(line) for line in silos["south"].home.audit.read_text().splitlines()]
    scored = next(record for record in answering if record["event"] == "scored")
    assert (scored["mode"], scored["asker"], scored["views"]) == ("private", "north", 20)
    asking = [json.loads(line) for line in silos["north"].home.audit.read_text().splitlines()]
    assert next(record for record in asking if record["event"] == "asked")["mode"] == "private"


def test_the_broker_names_its_silos_and_passes_on_to_one_only(federation):
    silos, transport, _ = federation()
    gateway = silos["north"].home.gateway_socket
    assert decode(local.exchange(gateway, encode(Who()), 10), Silos).silos == NAMES
    transport.handlers = {"south": lambda message: message[::-1], "north": lambda message: b"no"}
    relayed = decode(local.exchange(gateway, encode(Relay(silo="south", budget_ms=1000, frame=b"abc")), 10), Relayed)
    assert (relayed.state, relayed.content) == (SiloState.ANSWERED, b"cba")
    elsewhere = decode(local.exchange(gateway, encode(Relay(silo="nowhere", budget_ms=1000, frame=b"abc")), 10), Relayed)
    assert elsewhere.state is SiloState.UNREACHABLE
