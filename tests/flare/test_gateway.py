"""The gateway waits as long as a question may take, whatever kind it is and however it comes, and says why nothing did."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from nvflare.apis.event_type import EventType

from silo_app.config import load
from silo_app.errors import MessageInvalid, ProcessFailed
from silo_app.flare import cells, words
from silo_app.flare.gateway import SiloGateway
from silo_app.search import local
from silo_app.search.counts.messages import CountRequest
from silo_app.search.envelope import conceal, keyed, keys_for, seal
from silo_app.search.meeting import VOUCHER_ASKED
from silo_app.search.messages import ErrorMessage, Relay, SearchRequest, unit_embedding
from silo_app.search.parcels import Content, Parcel, pack
from silo_app.search.private.messages import PrivateRequest
from silo_app.search.sealed import Broadcast
from silo_app.search.standing import GENERATION_ASKED
from silo_app.search.wire import decode, encode
from tests.search.conftest import Authority

MARGIN_S = 0.08
VECTOR = {"encoder_version": "ab" * 32, "vector": unit_embedding(np.ones(16, np.float32))}
KINDS = {
    "search": lambda **shared: SearchRequest(**shared, **VECTOR, k=10),
    "count": lambda **shared: CountRequest(**shared, **VECTOR, alike=95.0),
    "private": lambda **shared: PrivateRequest(
        **shared, encoder_version="ab" * 32, dimension=16, ciphertext=b"c", session="0" * 32, keys=b"k" * 10**6
    ),
}


@pytest.fixture
def identity(tmp_path):
    found = Authority(tmp_path / "kits").identity("north")
    found.peers["north"] = found.trust.vouched(found.session.voucher)
    return found


@pytest.fixture
def gateway(identity, tmp_path, monkeypatch):
    """The gateway of a silo, without NVFlare's network: `asked` is what the broker was asked, and with which time."""
    home, handlers, asked = load(tmp_path / "kits" / "north"), {}, []

    def request(_core, _topic, target, payload, timeout_s):
        asked.append((target, payload, timeout_s))
        raise cells.CellTimeout(target)

    monkeypatch.setattr(cells, "core_of", lambda _engine: None)
    monkeypatch.setattr(cells, "listen", lambda _core, topic, handler, _pool: handlers.__setitem__(topic, handler))
    monkeypatch.setattr(cells, "request", request)
    workspace = SimpleNamespace(get_root_dir=lambda: str(home.kit))
    context = SimpleNamespace(get_engine=lambda: None, get_prop=lambda _name: workspace)
    made = SiloGateway()
    made.handle_event(EventType.SYSTEM_START, context)
    yield SimpleNamespace(home=home, handlers=handlers, asked=asked)
    made.handle_event(EventType.SYSTEM_END, context)


def question(kind, budget_ms):
    return KINDS[kind](issued_at_ms=1, budget_ms=budget_ms, purpose="care", asker="north")


def with_its_key(identity, request):
    signed, key = conceal(identity, request)
    return keyed(signed, keys_for(identity, signed, key)["north"])


COMING = {
    "signed": seal,
    "keyed": with_its_key,
    "in a parcel": lambda identity, request: pack(Parcel((Content(0, with_its_key(identity, request), request.budget_ms),))),
}


@pytest.mark.parametrize("way", COMING)
@pytest.mark.parametrize("kind", KINDS)
def test_the_index_process_has_the_time_that_the_question_may_take(kind, way, gateway, identity):
    index = local.FrameServer(gateway.home.index_socket, lambda _frame: time.sleep(3) or b"")
    index.start()
    start = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"no reply within 0\.48 s"):
        gateway.handlers[words.TOPIC_ASK]("server.job", COMING[way](identity, question(kind, 400)))
    assert time.monotonic() - start < 2.5
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_takes_its_time_is_waited_for(kind, gateway, identity, monkeypatch):
    monkeypatch.setattr("silo_app.search.envelope._USUAL_MS", 100)  # what was waited where a budget could not be read
    index = local.FrameServer(gateway.home.index_socket, lambda _frame: time.sleep(0.6) or b"answer")
    index.start()
    frame = with_its_key(identity, question(kind, 30_000))
    assert gateway.handlers[words.TOPIC_ASK]("server.job", frame) == b"answer"
    index.close()


@pytest.mark.parametrize("frame", [GENERATION_ASKED, VOUCHER_ASKED, b"", b"noise", encode(question("search", 400))])
def test_what_is_no_question_does_not_reach_the_index_process(frame, gateway, identity, caplog):
    asked = []
    index = local.FrameServer(gateway.home.index_socket, lambda frame: asked.append(frame) or b"answer")
    index.start()
    with pytest.raises(MessageInvalid, match="it is no question"):
        gateway.handlers[words.TOPIC_ASK]("server.job", frame)
    assert caplog.messages == ["what server.job sent is no question, and was not passed on"]
    assert asked == []
    for passed in (pack(Parcel()), *(way(identity, question("search", 400)) for way in COMING.values())):
        assert gateway.handlers[words.TOPIC_ASK]("server.job", passed) == b"answer"
    index.close()


def test_the_broker_is_told_the_index_processs_keys(gateway):
    index = local.FrameServer(gateway.home.index_socket, lambda frame: b"voucher" if frame == VOUCHER_ASKED else b"")
    index.start()
    assert gateway.handlers[words.TOPIC_ANNOUNCE]("server.job", b"") == b"voucher"
    index.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_broker_has_the_time_that_is_left_and_its_silence_is_told(kind, gateway, identity):
    gateway.handlers[words.TOPIC_ANNOUNCE]("server.job", b"")
    signed, _ = conceal(identity, question(kind, 30_000))
    for message, left_s in (
        (Broadcast(budget_ms=30_000, frame=signed), 30.0),
        (Broadcast(budget_ms=700, frame=signed), 0.7),
        (Relay(silo="south", budget_ms=30_000, frame=signed), 30.0),
    ):
        reply = decode(local.exchange(gateway.home.gateway_socket, encode(message), 10), ErrorMessage)
        assert reply.problem == "the broker does not answer in time"
        assert gateway.asked[-1] == ("server.job", encode(message), pytest.approx(left_s + MARGIN_S))


def test_only_a_job_of_the_server_is_taken_for_the_broker(gateway, identity):
    gateway.handlers[words.TOPIC_ANNOUNCE]("site-2.job", b"")
    frame = encode(Broadcast(budget_ms=500, frame=conceal(identity, question("search", 500))[0]))
    reply = decode(local.exchange(gateway.home.gateway_socket, frame, 10), ErrorMessage)
    assert reply.problem == "no broker has announced itself yet"
    assert gateway.asked == []
