"""The contract with NVFlare's internals: who is let in at the server, whatever certificate it has."""

import datetime as dt
import json
import time
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, IdentityChallengeKey, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.registry import Callback, Registry
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.private.defs import AUTH_CLIENT_NAME_FOR_SJ, CellMessageHeaderKeys
from nvflare.private.fed.server.client_manager import ClientManager
from nvflare.private.fed.server.fed_server import FederatedServer

from silo_app.flare.door import Door

MEMBERS = {"silos": ["hospital-a"], "anchor": "anchor", "people": ["lead@x.example"], "revoked": []}
REGISTERED = "what NVFlare says to who registers"


@pytest.fixture
def server(tmp_path):
    """The part of NVFlare's server that hears messages, behind a door."""
    made = object.__new__(FederatedServer)
    made.registered, made.left, made.kit = [], [], tmp_path
    made.engine = SimpleNamespace(server=made)
    clients = {f"token of {name}": SimpleNamespace(name=name) for name in ("hospital-a", "hospital-b")}
    made.client_manager = object.__new__(ClientManager)
    made.client_manager.clients = clients
    made.logout_client = made.left.append
    made.register_client = lambda request: made.registered.append(request) or REGISTERED
    listeners, filters = {}, Registry()
    filters.append("*", "*", Callback(lambda _message: None, (), {}))  # NVFlare's own
    made.cell = SimpleNamespace(
        core_cell=SimpleNamespace(in_filter_reg=filters),
        register_request_cb=lambda channel, topic, cb: listeners.update({(channel, topic): cb}),
        listeners=listeners,
    )
    say(made, MEMBERS)
    fl_ctx = FLContext()
    fl_ctx.get_engine = lambda: made.engine
    fl_ctx.set_prop(FLContextKey.WORKSPACE_OBJECT, SimpleNamespace(get_root_dir=lambda: str(tmp_path)))
    Door().handle_event(EventType.SYSTEM_START, fl_ctx)
    return made


def say(server, content):
    file = server.kit / "local" / "consortium.json"
    file.parent.mkdir(exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(content if isinstance(content, str) else json.dumps(content))
    new.replace(file)


def passed(server, name, **headers):
    """Let a message through NVFlare's filters as its core does, and return what stopped it, if anything did."""
    sender = {CellMessageHeaderKeys.CLIENT_NAME: name} if name else {}
    message = new_cell_message({**sender, **headers})
    filters = server.cell.core_cell.in_filter_reg.find("any channel", "any topic")
    replies = [reply for one in filters if (reply := one.cb(message))]
    return replies[0].get_header(MessageHeaderKey.RETURN_CODE) if replies else None


@pytest.mark.parametrize("name", ["hospital-a", "anchor", "lead@x.example", "server", AUTH_CLIENT_NAME_FOR_SJ, None])
def test_members_and_the_servers_own_processes_pass(server, name):
    assert passed(server, name) is None


@pytest.mark.parametrize("name", ["hospital-b", "HOSPITAL-A", "hospital-a.job", "", "admin@x.example"])
def test_others_do_not(server, name):
    expected = ReturnCode.UNAUTHENTICATED if name else None  # NVFlare refuses a message without a name
    assert passed(server, name) == expected


def test_it_looks_before_nvflare_takes_the_name_away(server):
    first, second = server.cell.core_cell.in_filter_reg.find("*", "*")
    assert (first.cb.__name__, second.cb.__name__) == ("pass_on", "<lambda>")


def test_who_leaves_is_turned_away_at_once_and_forgotten_and_comes_back_when_it_is_there_again(server):
    say(server, MEMBERS | {"silos": []})
    assert passed(server, "hospital-a") == ReturnCode.UNAUTHENTICATED
    deadline = time.monotonic() + 5
    while not server.left and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.left == ["token of hospital-a"]
    assert passed(server, "hospital-a") == ReturnCode.UNAUTHENTICATED
    say(server, MEMBERS)
    assert passed(server, "hospital-a") is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"silos": ["hospital-b"], "anchor": "anchor", "revoked": ["x"]}'])
def test_a_file_that_cannot_be_read_leaves_members_as_they_were(server, content):
    assert passed(server, "hospital-a") is None
    say(server, content)
    assert passed(server, "hospital-a") is None
    assert passed(server, "hospital-b") == ReturnCode.UNAUTHENTICATED


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hospital-a")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1)).sign(key, hashes.SHA256())


def register(server, content):
    request = new_cell_message({CellMessageHeaderKeys.CLIENT_NAME: "hospital-a"}, Shareable())
    request.payload[IdentityChallengeKey.CERT] = content
    return server.cell.listeners[CellChannel.SERVER_MAIN, CellChannelTopic.Register](request)


def test_nobody_registers_with_a_revoked_certificate(server):
    old, new = certificate(), certificate()
    pem = serialization.Encoding.PEM
    assert register(server, old.public_bytes(pem)) == REGISTERED
    say(server, MEMBERS | {"revoked": [f"{old.serial_number:x}"]})
    assert register(server, old.public_bytes(pem)).get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
    assert register(server, new.public_bytes(pem)) == REGISTERED
    assert len(server.registered) == 2


def test_what_is_no_certificate_registers_nobody(server):
    assert register(server, b"nonsense").get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
    assert server.registered == []
