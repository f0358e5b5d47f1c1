"""The asking side: what leaves, what comes back, and what people are told when it does not."""

import contextlib
import errno
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from silo_app.catalogue import Catalogue
from silo_app.errors import BrokerUnreachable, MessageInvalid, NotReady
from silo_app.policy.filters import Filters
from silo_app.search import ask, local
from silo_app.search.ask import Asker, search_embedding
from silo_app.search.broker import Broker
from silo_app.search.envelope import budget_of, peek_request
from silo_app.search.meeting import VOUCHER_ASKED
from silo_app.search.messages import ErrorMessage, SearchResult, Silos, unit_embedding
from silo_app.search.sealed import Broadcast
from silo_app.search.server import IndexProcess
from silo_app.search.wire import decode, encode

ENCODER = "ab" * 32
UNHURRIED = 20_000
"""Milliseconds: time enough on a machine that is busy with other tests."""


def unit_rows(random, count):
    vectors = random.standard_normal((count, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class SocketTransport:
    """What the gateways do between broker and index processes, without NVFlare."""

    def __init__(self, silos):
        self.silos, self.asked = silos, []

    def ask(self, silo, message, budget_s):
        self.asked.append(silo)
        return local.exchange(self.silos[silo].home.index_socket, message, budget_s)


@pytest.fixture
def federation(stocked):
    """Three silos with index processes, a broker, and `north`'s gateway: all but the network."""
    silos = {name: stocked(name, studies=2) for name in ("north", "south", "westward")}
    processes = []
    for silo in silos.values():
        silo.index()
        processes.append(IndexProcess(silo.home))
        processes[-1].start()
    transport = SocketTransport(silos)
    broker = Broker(transport, tuple(silos), budget_ms=UNHURRIED)
    for name, process in zip(silos, processes, strict=True):
        broker.met(name, process.answer_frame(VOUCHER_ASKED))
    gateway = local.FrameServer(silos["north"].home.gateway_socket, broker.search)
    gateway.start()
    yield Federation(silos, transport=transport, gateway=gateway, broker=broker, index=processes[0], others=processes[1:])
    gateway.close()
    broker.close()
    for process in processes:
        process.close()


class Federation(dict):
    """The silos by name, and what of the way between them tests watch or end."""

    def __init__(self, silos, **parts):
        super().__init__(silos)
        vars(self).update(parts)


@pytest.fixture
def gateway(stocked):
    """Make a gateway of `north` that replies with the given bytes."""
    silo, made = stocked("north", cases=0), []

    def reply(content):
        made.append(local.FrameServer(silo.home.gateway_socket, content))
        made[-1].start()
        return silo

    yield reply
    for server in made:
        server.close()


def search(silo, vector=None, **options):
    vector = np.ones(16, np.float32) if vector is None else vector
    return asked(Asker.of(silo.home), vector, **options)


def asked(asker, vector, **options):
    return search_embedding(asker, vector, **{"encoder_version": ENCODER, "budget_ms": UNHURRIED} | options)


def test_all_silos_answer(federation):
    result = search(federation["north"], k=15)
    assert {report.silo: report.state.value for report in result.silos} == dict.fromkeys(federation, "answered")
    assert len(result.hits) == 15
    assert result.answered == 3


def test_behind_the_nearest_come_as_many_of_other_hospitals_as_are_the_askers_own(federation):
    silo = federation["north"]
    vector = next(iter(silo.vectors.values()))
    result, ranked = search(silo, vector, k=5), search(silo, vector, k=60).hits
    own = sum(hit.silo == "north" for hit in result.hits)
    assert own
    assert result.hits == ranked[:5]
    assert result.elsewhere == tuple(hit for hit in ranked[5:] if hit.silo != "north")[:own]
    said = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    (received,) = [one["received"] for one in said if one.get("asked_query") == result.query_id and "received" in one]
    assert received == [f"{hit.silo}:{hit.case}" for hit in (*result.hits, *result.elsewhere)]


def test_what_is_left_out_of_the_own_cases_makes_room_for_others_in_the_ranking(federation):
    silo = federation["north"]
    vector = next(iter(silo.vectors.values()))
    ranked = search(silo, vector, k=60).hits
    out = [hit.case_id for hit in ranked[:5] if hit.silo == "north"]
    result, kept = search(silo, vector, k=5, exclude=out), [hit for hit in ranked if hit.case_id not in out]
    assert result.hits == tuple(kept[:5])
    own = sum(hit.silo == "north" for hit in result.hits)
    assert result.elsewhere == tuple(hit for hit in kept[5:] if hit.silo != "north")[:own]


def test_many_at_once_get_what_each_gets_alone_with_a_record_each(federation):
    north = federation["north"]
    asker, vectors = Asker.of(north.home), unit_rows(np.random.default_rng(3), 24)

    def ask(vector):
        result = asked(asker, vector, k=5)
        assert result.answered == 3
        return [(hit.silo, hit.case, hit.score) for hit in result.hits]

    alone = [ask(vector) for vector in vectors]
    with ThreadPoolExecutor(len(vectors)) as pool:
        together = list(pool.map(ask, vectors))
    asker.close()
    assert together == alone
    records = [json.loads(line) for line in north.home.audit.read_text().splitlines()]
    queries = [record["asked_query"] for record in records if record["event"] == "asked"]
    assert len(set(queries)) == len(queries) == 48
    answered = [json.loads(line) for line in federation["south"].home.audit.read_text().splitlines()]
    assert {record["query"] for record in answered} == set(queries)


def test_an_asker_that_was_closed_asks_anew(federation):
    asker = Asker.of(federation["north"].home)
    for _ in range(2):
        assert asked(asker, unit_rows(np.random.default_rng(4), 1)[0]).answered == 3
        asker.close()


def test_it_equals_the_search_over_all_vectors(federation):
    rng = np.random.default_rng(0)
    everything = {}
    for name, silo in federation.items():
        with Catalogue.open(silo.home.catalogue) as catalogue:
            everything |= {(name, view.case): silo.vectors[view.digest] for view in catalogue.views()}
    for _ in range(5):
        query = rng.standard_normal(16)
        query = (query / np.linalg.norm(query)).astype(np.float32)
        exact = sorted(everything, key=lambda owner: -float(everything[owner].astype(np.float16) @ query))
        assert [(hit.silo, hit.case) for hit in search(federation["north"], query, k=10).hits] == exact[:10]


def test_own_cases_of_the_same_patient_are_left_out_here_and_named_to_nobody(federation):
    north = federation["north"]
    digest, vector = next(iter(north.vectors.items()))
    with Catalogue.open(north.home.catalogue) as catalogue:
        patient = catalogue.card(catalogue.case_of_digest(digest)).patient
        own = catalogue.patient_cases(patient)
    assert len(own) == 2
    full = search(north, vector, k=12)
    without = search(north, vector, k=10, exclude=own)
    assert full.hits[0].case in own
    assert [hit.case for hit in without.hits] == [hit.case for hit in full.hits if hit.case not in own][:10]
    assert len(without.hits) == 10
    asked = [json.loads(line) for line in federation["south"].home.audit.read_text().splitlines()][-1]
    assert not set(own) & set(str(asked).split("'"))


def test_both_ends_keep_a_record(federation):
    result = search(federation["north"], user="dr.x")
    asked = json.loads(federation["north"].home.audit.read_text().splitlines()[-1])
    assert (asked["event"], asked["asked_query"], asked["user"]) == ("asked", result.query_id, "dr.x")
    before = json.loads(federation["north"].home.audit.read_text().splitlines()[0])
    assert (before["event"], before["asked_query"], before["user"]) == ("asking", result.query_id, "dr.x")
    assert "south:answered" in asked["silos"]
    answered = json.loads(federation["south"].home.audit.read_text().splitlines()[-1])
    assert (answered["event"], answered["query"], answered["asker"]) == ("answer", result.query_id, "north")


def test_no_gateway_says_what_to_do(stocked):
    with pytest.raises(NotReady, match="gateway does not answer: nobody listens") as raised:
        search(stocked("north", cases=0))
    assert "Is the site running" in raised.value.remedy


def test_an_error_of_the_gateway_is_told_with_its_remedy(gateway):
    error = BrokerUnreachable("no broker has announced itself yet", remedy="Is the job `search` running?")
    silo = gateway(lambda _frame: local.error_frame(error))
    with pytest.raises(BrokerUnreachable, match="no broker has announced itself yet") as raised:
        search(silo)
    assert raised.value.remedy == "Is the job `search` running?"


def test_an_error_of_the_broker_is_its_public_sentence(gateway):
    silo = gateway(lambda _frame: encode(ErrorMessage(code="protocol", public="The message was refused.")))
    with pytest.raises(BrokerUnreachable, match=r"The message was refused\."):
        search(silo)


@pytest.mark.parametrize("noise", [b"", b"noise", b"\xc1" * 1000])
def test_noise_instead_of_a_result_is_refused(gateway, noise):
    with pytest.raises(MessageInvalid):
        search(gateway(lambda _frame: noise))


@pytest.mark.parametrize("change", [{"query_id": "0" * 32}, {"encoder_version": "cd" * 16}])
def test_a_result_of_another_query_is_refused(gateway, change):
    def other(frame):
        request = peek_request(decode(frame, Broadcast).frame)
        fields = {"query_id": request.query_id, "encoder_version": request.encoder_version} | change
        return encode(SearchResult(**fields, k=10, hits=(), silos=()))

    with pytest.raises(MessageInvalid, match="another query"):
        search(gateway(other))


def test_what_leaves_says_who_asks_and_is_else_for_the_silos_alone(gateway):
    seen = []
    silo = gateway(lambda frame: seen.append(frame) or b"")
    vector = np.arange(1, 17, dtype=np.float32)
    with pytest.raises(MessageInvalid):
        search(silo, vector, user="dr.x", purpose="research", filters=Filters(sexes=("F",)))
    request = peek_request(decode(seen[-1], Broadcast).frame)
    assert set(request.model_dump()) == {
        "kind", "version", "query_id", "budget_ms", "encoder_version", "k", "asker", "queries", "content",
    }  # fmt: skip
    everything = b"".join(seen)
    for secret in (unit_embedding(vector), unit_embedding(vector)[:8], b"dr.x", b"research", b"sexes"):
        assert secret not in everything


def states(result):
    return {report.silo: report.state.value for report in result.silos}


def test_the_own_silo_is_asked_without_the_network(federation):
    """Alone and in bundles: its answer is signed, sealed and merged as any other."""
    asker, vectors = Asker.of(federation["north"].home), unit_rows(np.random.default_rng(8), 12)

    def ask(vector):
        return asked(asker, vector, k=30)

    with ThreadPoolExecutor(len(vectors)) as pool:
        results = [ask(vectors[0]), *pool.map(ask, vectors)]
    asker.close()
    assert all(states(result) == dict.fromkeys(federation, "answered") for result in results)
    assert all({hit.silo for hit in result.hits} == set(federation) for result in results)
    assert [report.silo for report in results[0].silos] == sorted(federation)
    assert set(federation.transport.asked) == {"south", "westward"}


@pytest.mark.parametrize("together", [False, True])
def test_own_cases_are_found_without_the_federation_and_nothing_hides_that(federation, together):
    federation.gateway.close()
    north = federation["north"]
    asker, vectors = Asker.of(north.home), unit_rows(np.random.default_rng(8), 8 if together else 1)
    with ThreadPoolExecutor(len(vectors)) as pool:
        results = list(pool.map(lambda v: asked(asker, v), vectors))
    asker.close()
    for result in results:
        assert states(result) == {"north": "answered"}
        assert {hit.silo for hit in result.hits} == {"north"}
        assert "gateway does not answer" in result.unheard
        assert "Is the site running" in result.unheard
    record = json.loads(north.home.audit.read_text().splitlines()[-1])
    assert record["unheard"] == results[0].unheard


def test_without_own_index_process_the_broker_says_what_it_sees(federation):
    federation.index.close()
    result = search(federation["north"])
    assert states(result) == dict.fromkeys(federation, "answered") | {"north": states(result)["north"]}
    assert states(result)["north"] in {"unreachable", "error"}
    assert not result.unheard
    federation.gateway.close()
    with pytest.raises(NotReady, match="gateway does not answer"):
        search(federation["north"])


def test_an_own_index_process_that_hangs_is_late_then_not_waited_for_and_then_found_again(federation, monkeypatch):
    asker, go_on = Asker.of(federation["north"].home), threading.Event()
    answer = federation.index._server._handler

    def hang(frame):
        go_on.wait(20)
        return answer(frame)

    monkeypatch.setattr(federation.index._server, "_handler", hang)

    def ask():
        start = time.monotonic()
        result = asked(asker, np.ones(16, np.float32), budget_ms=2000)
        assert states(result) | {"north": ""} == dict.fromkeys(federation, "answered") | {"north": ""}
        return states(result)["north"], next(r.code for r in result.silos if r.silo == "north"), time.monotonic() - start

    waited = [ask() for _ in range(3)]
    assert {one[:2] for one in waited} == {("late", "no-answer-in-time")}
    assert all(took < 2.0 + 0.2 for _, _, took in waited)
    assert ask()[:2] == ("late", "left-alone")
    monkeypatch.undo()
    go_on.set()
    end = time.monotonic() + 20
    while ask()[0] != "answered":
        assert time.monotonic() < end
        time.sleep(0.05)
    asker.close()


def test_an_own_reply_that_another_wrote_is_invalid_and_costs_the_own_hits(federation, monkeypatch):
    """Whoever could listen on the silo's private socket still has no key of the silo."""
    monkeypatch.setattr(federation.index._server, "_handler", lambda _frame: b"noise")
    result = search(federation["north"])
    assert states(result) == {"north": "invalid", "south": "answered", "westward": "answered"}
    assert "north" not in {hit.silo for hit in result.hits}


def test_only_the_asker_says_that_nobody_was_heard(gateway):
    """A broker that was heard cannot put a sentence before a clinician."""

    def told(frame):
        request = peek_request(decode(frame, Broadcast).frame)
        fields = {"query_id": request.query_id, "encoder_version": request.encoder_version, "k": request.k}
        return encode(SearchResult(**fields, hits=(), silos=(), unheard="Call this number."))

    assert not search(gateway(told)).unheard


def test_a_silo_that_was_started_again_is_asked_once_more_with_its_new_keys(federation):
    """Its refusal brings them."""
    asker = Asker.of(federation["north"].home)
    assert asked(asker, unit_rows(np.random.default_rng(4), 1)[0]).answered == 3
    federation.others[0].close()
    again = IndexProcess(federation["south"].home)
    again.start()
    try:
        federation.transport.asked.clear()
        for vector in unit_rows(np.random.default_rng(5), 2):
            assert asked(asker, vector).answered == 3
        assert sorted(federation.transport.asked) == ["south", "south", "south", "westward", "westward"]
    finally:
        again.close()
        asker.close()
    lines = [json.loads(line) for line in federation["south"].home.audit.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["answer", "refusal", "answer", "answer"]
    assert (lines[1]["code"], lines[1]["asker"]) == ("other-key", "north")
    assert "query" not in lines[1]  # or it would be refused as one that was asked before
    assert lines[1]["unread"] == lines[2]["query"]


@contextlib.contextmanager
def started_again(federation, *names):
    """The index processes of some silos, ended and started anew: they have other keys now."""
    processes = dict(zip(federation, [federation.index, *federation.others], strict=True))
    made = []
    for name in names:
        processes[name].close()
        made.append(IndexProcess(federation[name].home))
        made[-1].start()
    try:
        yield
    finally:
        for process in made:
            process.close()


def asked_again(monkeypatch, federation, behave):
    """Have the gateway behave so when silos are asked once more."""
    relay = federation.gateway._handler

    def serve(frame):
        is_second = b"broadcast" in frame and decode(frame, Broadcast).only
        return behave(frame) if is_second else relay(frame)

    monkeypatch.setattr(federation.gateway, "_handler", serve)


NO_BROKER = local.error_frame(BrokerUnreachable("the broker is not there", remedy="Look at the job."))
SECOND = {
    "noise": (lambda _frame: b"noise", UNHURRIED, ("invalid", "answer-invalid")),
    "no broker": (lambda _frame: NO_BROKER, UNHURRIED, ("unreachable", "broker-unreachable")),
    "nothing in time": (lambda _frame: time.sleep(6) or b"", 4000, ("late", "no-answer-in-time")),
}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", SECOND)
def test_who_is_asked_once_more_in_vain_is_named_and_costs_no_others_answer(kind, together, federation, monkeypatch):
    behave, budget_ms, state = SECOND[kind]
    asker, vectors = Asker.of(federation["north"].home), unit_rows(np.random.default_rng(4), 7)
    assert asked(asker, vectors[0]).answered == 3
    asked_again(monkeypatch, federation, behave)
    with started_again(federation, "south"), ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda v: asked(asker, v, budget_ms=budget_ms), vectors[1:] if together else vectors[1:2]))
    asker.close()
    lost = 0
    for result in results:
        reports = {report.silo: report for report in result.silos}
        assert reports["north"].state == reports["westward"].state == "answered"
        assert {"north", "westward"} <= {hit.silo for hit in result.hits}
        assert not result.unheard
        if reports["south"].state != "answered":  # some may begin when its refusal has brought the keys
            assert (reports["south"].state.value, reports["south"].code) == state
            lost += 1
    assert lost > 0
    lines = [json.loads(line) for line in federation["north"].home.audit.read_text().splitlines()]
    records = [line for line in lines if line["event"] == "asked"][1:]
    assert {record["asked_query"] for record in records} == {result.query_id for result in results}
    assert sum(f"south:{state[0]}" in record["silos"] for record in records) == lost


def test_the_own_silo_is_asked_once_more_without_the_broker(federation, monkeypatch):
    asker, vectors = Asker.of(federation["north"].home), unit_rows(np.random.default_rng(4), 2)
    assert asked(asker, vectors[0]).answered == 3
    asked_again(monkeypatch, federation, lambda _frame: NO_BROKER)
    with started_again(federation, "north", "south"):
        result = asked(asker, vectors[1])
    asker.close()
    assert states(result) == {"north": "answered", "south": "unreachable", "westward": "answered"}


def test_a_silo_that_hangs_when_asked_once_more_has_only_what_is_left(federation, monkeypatch):
    asker, vectors = Asker.of(federation["north"].home), unit_rows(np.random.default_rng(4), 2)
    assert asked(asker, vectors[0]).answered == 3
    given = []

    def hang(frame):
        given.append(budget_of(frame))
        time.sleep(1.0)
        return federation.broker.search(frame)

    asked_again(monkeypatch, federation, hang)
    with started_again(federation, "south"):
        ask, transport = federation.transport.ask, federation.transport

        def behave(silo, message, budget_s):
            reply = ask(silo, message, budget_s)
            if silo == "south":
                given.append(budget_s * 1000)
            return reply

        monkeypatch.setattr(transport, "ask", behave)
        result = asked(asker, vectors[1], budget_ms=UNHURRIED)
    asker.close()
    assert states(result)["south"] == "answered"
    _, left_ms, second_ms = given
    assert left_ms < UNHURRIED
    assert second_ms <= 0.95 * left_ms


def test_without_a_time_a_search_has_what_the_search_job_gives(federation, gateway):
    asker = Asker.of(federation["north"].home)
    assert asker.usual_ms == UNHURRIED
    assert asked(asker, np.ones(16, np.float32), budget_ms=None).answered == 3
    asker.close()
    federation.gateway.close()
    nobody = Asker.of(gateway(lambda _frame: b"noise").home)
    assert nobody.usual_ms == 1000
    nobody.close()


def test_what_the_search_job_gives_is_heard_again_and_a_silence_is_not_kept(gateway, monkeypatch):
    job = {"budget_ms": None}

    def broker(_frame):
        if job["budget_ms"] is None:
            return NO_BROKER
        return encode(Silos(silos=(), at_ms=0, budget_ms=job["budget_ms"]))

    asker = Asker.of(gateway(broker).home)
    assert asker.usual_ms == 1000
    job["budget_ms"] = 5000  # a broker that comes back is heard by the next search
    assert asker.usual_ms == 5000
    job["budget_ms"] = 3000
    assert asker.usual_ms == 5000  # for a minute
    monkeypatch.setattr(ask, "_HEARD_FOR_S", 0.0)
    asker._usual.heard(5000)
    assert asker.usual_ms == 3000
    job["budget_ms"] = None
    assert asker.usual_ms == 3000  # the last word is better than none
    asker.close()


LOST = {
    "noise": (lambda _frame: b"noise", MessageInvalid, "message-invalid"),
    "no broker": (lambda _frame: NO_BROKER, BrokerUnreachable, "broker-unreachable"),
}


@pytest.mark.parametrize("kind", LOST)
def test_that_an_embedding_leaves_is_recorded_before_it_does_and_whatever_comes_back(kind, gateway):
    """A server that relays it, and hides what came back, hides it from nobody's audit log."""
    reply, error, code = LOST[kind]
    before = []

    def serve(frame):
        if b"broadcast" in frame:
            before.extend(json.loads(line) for line in silo.home.audit.read_text().splitlines())
        return reply(frame)

    silo = gateway(serve)
    with pytest.raises(error):
        search(silo, user="dr.x", purpose="research")
    records = [json.loads(line) for line in silo.home.audit.read_text().splitlines()]
    assert before == records[:1]
    assert [record["event"] for record in records] == ["asking", "asking-failed"]
    for record in records:
        assert (record["user"], record["purpose"], record["mode"]) == ("dr.x", "research", "plain")
        assert record["asked_query"] == records[0]["asked_query"]
    assert records[1]["code"] == code


def test_without_a_record_nothing_leaves(gateway, monkeypatch):
    seen = []
    silo = gateway(lambda frame: seen.append(frame) or b"")
    asker = Asker.of(silo.home)

    def full(_records):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(asker.audit, "append_all", full)
    with pytest.raises(OSError, match="No space"):
        asked(asker, np.ones(16, np.float32))
    assert seen == []


def test_without_the_silos_keys_all_are_asked_twice_once(federation):
    federation.broker._vouchers.clear()
    asker = Asker.of(federation["north"].home)
    for vector in unit_rows(np.random.default_rng(6), 2):
        assert asked(asker, vector).answered == 3
    asker.close()
    assert sorted(federation.transport.asked) == ["south"] * 3 + ["westward"] * 3


def test_a_voucher_in_anothers_name_is_nobodys(federation):
    """A broker that exchanges the silos' vouchers, or makes its own, reads nothing, and keeps nobody from answering."""
    vouchers = federation.broker._vouchers
    vouchers["south"], vouchers["westward"] = vouchers["westward"], b"noise"
    asker = Asker.of(federation["north"].home)
    result = asked(asker, unit_rows(np.random.default_rng(7), 1)[0])
    asker.close()
    assert result.answered == 3
    assert {silo: peer.who.name for silo, peer in asker.identity.peers.items()} == {name: name for name in federation}
