import os
import socket

import pytest

from provisioning import ports
from silo_app.errors import PortTaken


@pytest.fixture
def listener():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found


def test_a_taken_port_is_refused_with_the_process_that_has_it(listener):
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"port {port} is taken by process {os.getpid()} \("):
        ports.refuse_taken(port)


def test_a_free_port_can_be_taken():
    port = ports.free_port()
    assert port < 32768
    ports.refuse_taken(port)
    assert not ports.is_open("127.0.0.1", port)


def test_a_listening_port_is_open(listener):
    assert ports.is_open("127.0.0.1", listener.getsockname()[1])


def test_nothing_free_is_an_error(monkeypatch):
    monkeypatch.setattr(ports, "_can_bind", lambda _: False)
    with pytest.raises(PortTaken, match="none is free"):
        ports.free_port()
