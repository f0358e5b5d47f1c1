"""What both ends write down of a private search, whatever becomes of it on the way."""

import json

import pytest

from silo_app.errors import BrokerUnreachable, MessageInvalid
from silo_app.search import local
from silo_app.search.ask import Asker
from silo_app.search.broker import Broker
from silo_app.search.counts.ask import count_embedding
from silo_app.search.messages import Relay
from silo_app.search.private.ask import PrivateSession
from silo_app.search.server import IndexProcess
from silo_app.search.wire import decode

ENCODER = "ab" * 32
NAMES = ("south", "westward")
OPEN = "release: {same_patient: show, private: {answer: true, noise: 0, processes: 1}}\n"


class SocketTransport:
    """What the gateways do, without NVFlare."""

    def __init__(self, silos):
        self.silos = silos

    def ask(self, silo, message, budget_s):
        return local.exchange(self.silos[silo].home.index_socket, message, budget_s)


class Way:
    """Two silos that answer, one that asks, and what relays between them; `change` turns a reply into another."""

    def __init__(self, stocked):
        self.silos = {name: stocked(name, studies=2, config=OPEN) for name in NAMES}
        self.north = stocked("north", cases=0)
        self.processes = {}
        for name, silo in self.silos.items():
            silo.index()
            self.start(name)
        self.broker = Broker(SocketTransport(self.silos), NAMES)
        self.change = lambda _relay, reply: reply
        self.known_before = []
        self.gateway = local.FrameServer(self.north.home.gateway_socket, self._relayed)
        self.gateway.start()

    def start(self, name):
        if name in self.processes:
            self.processes[name].close()
        self.processes[name] = IndexProcess(self.silos[name].home)
        self.processes[name].start()

    def _relayed(self, frame):
        reply = self.broker.search(frame)
        if b"relay" not in frame[:24]:
            return reply
        self.known_before.append([record["event"] for record in self.records()])
        return self.change(decode(frame, Relay), reply)

    def records(self, name=""):
        log = (self.silos[name] if name else self.north).home.audit
        return [json.loads(line) for line in log.read_text().splitlines()]

    @property
    def vector(self):
        return next(iter(self.silos["south"].vectors.values()))

    def close(self):
        for part in (self.gateway, self.broker, *self.processes.values()):
            part.close()


@pytest.fixture
def way(stocked):
    made = Way(stocked)
    yield made
    made.close()


@pytest.fixture
def session(way):
    return PrivateSession(Asker.of(way.north.home), ENCODER, 16)


def states(result):
    return {report.silo: (report.state.value, report.code) for report in result.silos}


def test_both_ends_name_the_same_questions(way, session):
    result = session.search(way.vector, k=5, user="dr.x", purpose="research")
    way.start("south")  # it has lost the keys: it is asked once more with them
    second = session.search(way.vector, k=5)
    assert states(second) == dict.fromkeys(NAMES, ("answered", ""))
    before, after, *others = way.records()
    assert (before["event"], before["mode"], before["user"], before["purpose"]) == ("asking", "private", "dr.x", "research")
    assert (after["event"], after["asked_query"], after["queries"]) == ("asked", result.query_id, before["queries"])
    assert [record["event"] for record in others] == ["asking", "asked"]
    for name in NAMES:
        answering = [record for record in way.records(name) if "query" in record]
        assert {record["query"] for record in answering} <= {*after["queries"], *others[1]["queries"]}
        scored, shown = answering[:2]
        assert (scored["event"], scored["query"]) == ("scored", result.query_id)
        assert (shown["event"], shown["scored"], shown["query"] in after["queries"]) == ("answer", result.query_id, True)
    assert {events[0] for events in way.known_before} == {"asking"}


LOST = {
    "noise": (b"noise", ("invalid", "answer-invalid")),
    "an error": (local.error_frame(BrokerUnreachable("gone", remedy="")), ("unreachable", "broker-unreachable")),
}


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("kind", LOST)
def test_what_fails_on_the_way_to_one_silo_costs_that_silo_alone(kind, step, way, session):
    reply, state = LOST[kind]
    seen = []

    def change(relay, true):
        seen.append(relay.silo)
        return reply if relay.silo == "westward" and seen.count("westward") >= step else true

    way.change = change
    result = session.search(way.vector, k=5)
    assert states(result) == {"south": ("answered", ""), "westward": state}
    assert {hit.silo for hit in result.hits} == {"south"}
    assert [record["event"] for record in way.records()] == ["asking", "asked"]
    assert f"westward:{state[0]}" in way.records()[1]["silos"]


def test_a_count_is_recorded_before_it_leaves_and_costs_one_silo(way):
    way.change = lambda relay, reply: b"noise" if relay.silo == "westward" else reply
    asker = Asker.of(way.north.home)
    result = count_embedding(asker, way.vector, encoder_version=ENCODER, user="dr.x", budget_ms=20_000)
    assert [(one.report.silo, one.report.state.value) for one in result.silos][1] == ("westward", "invalid")
    before, after = way.records()
    assert (before["event"], before["mode"], before["user"]) == ("asking", "count", "dr.x")
    assert (after["event"], after["asked_query"]) == ("asked", before["asked_query"])
    assert way.records("south")[-1]["query"] == before["asked_query"]
    assert {tuple(events) for events in way.known_before} == {("asking",)}


def test_nobody_heard_is_recorded_too(way, session):
    way.gateway.close()
    way.gateway = local.FrameServer(way.north.home.gateway_socket, lambda _frame: b"noise")
    way.gateway.start()
    with pytest.raises(MessageInvalid):
        session.search(way.vector)
    before, failed = way.records()
    assert (before["event"], failed["event"], failed["code"]) == ("asking", "asking-failed", "message-invalid")
    assert failed["asked_query"] == before["asked_query"]
