"""Frames over a unix socket: one request, one reply, and a server that no bad frame ends."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from silo_app.errors import MessageInvalid, NotReady, ProcessFailed
from silo_app.search import local
from silo_app.search.messages import ErrorMessage
from silo_app.search.wire import decode


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "silo.sock"


@pytest.fixture
def server(path):
    made = local.FrameServer(path, lambda frame: frame[::-1])
    made.start()
    yield made
    made.close()


@pytest.mark.usefixtures("server")
def test_a_frame_comes_back(path):
    assert local.exchange(path, b"abc", 5) == b"cba"
    assert local.exchange(path, b"", 5) == b""
    large = os.urandom(local.MAX_FRAME_BYTES)
    assert local.exchange(path, large, 20) == large[::-1]


@pytest.mark.usefixtures("server")
def test_only_the_owner_may_connect(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("server")
def test_many_at_once(path):
    replies = {}
    threads = [
        threading.Thread(target=lambda i=i: replies.__setitem__(i, local.exchange(path, str(i).encode(), 5)))
        for i in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {i: str(i)[::-1].encode() for i in range(30)}


BAD = {
    "a length beyond the limit": b"\xff\xff\xff\xff",
    "half a length": b"\x00\x00",
    "half a frame": b"\x00\x00\x00\x09abc",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.usefixtures("server")
def test_a_bad_frame_ends_its_connection_only(kind, path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(BAD[kind])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert local.exchange(path, b"abc", 5) == b"cba"


def test_a_handler_that_raises_is_an_error_message_and_not_its_text(path):
    def fail(frame):
        raise RuntimeError("secret " + frame.decode())

    server = local.FrameServer(path, fail)
    server.start()
    reply = local.exchange(path, b"secret", 5)
    server.close()
    assert decode(reply, ErrorMessage).code == "siloscope"
    assert b"secret" not in reply


def test_nobody_listens(path):
    with pytest.raises(ProcessFailed, match="nobody listens"):
        local.exchange(path, b"abc", 1)


def test_no_reply_in_time(path):
    server = local.FrameServer(path, lambda frame: time.sleep(2) or frame)
    server.start()
    with pytest.raises(ProcessFailed, match=r"no reply within 0\.1 s"):
        local.exchange(path, b"abc", 0.1)
    server.close()


def test_too_large_a_frame_is_not_sent(server, path):
    with pytest.raises(MessageInvalid):
        local.exchange(path, bytes(local.MAX_FRAME_BYTES + 1), 5)


@pytest.mark.usefixtures("server")
def test_a_living_listener_is_not_replaced(path):
    with pytest.raises(NotReady, match="another process listens here already"):
        local.FrameServer(path, bytes).start()
    assert local.exchange(path, b"abc", 5) == b"cba"


def test_what_a_killed_process_left_is_replaced(path):
    code = "import sys, time; from pathlib import Path; from silo_app.search.local import FrameServer\n"
    code += "FrameServer(Path(sys.argv[1]), bytes).start(); print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, cwd=Path.cwd()) as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGKILL)
    assert path.exists()
    server = local.FrameServer(path, lambda frame: frame)
    server.start()
    assert local.exchange(path, b"abc", 5) == b"abc"
    server.close()
    assert not path.exists()


def test_a_long_path_works(tmp_path):
    path = tmp_path / ("long-" * 40) / "silo.sock"
    server = local.FrameServer(path, lambda frame: frame)
    server.start()
    assert local.exchange(path, b"abc", 5) == b"abc"
    server.close()


def test_closing_twice_does_nothing(path):
    server = local.FrameServer(path, bytes)
    server.start()
    server.close()
    server.close()


@pytest.fixture
def slow(path):
    """A server whose handler says that it has begun, and waits until it may go on."""

    class Slow:
        begun, go_on = threading.Event(), threading.Event()

        def answer(self, frame):
            self.begun.set()
            assert self.go_on.wait(60)
            return frame[::-1]

    made = Slow()
    made.server = local.FrameServer(path, made.answer)
    made.server.start()
    yield made
    made.go_on.set()
    made.server.close()


def test_its_end_waits_for_the_reply_that_is_being_made_and_for_no_idle_connection(path, slow, monkeypatch):
    monkeypatch.setattr(local, "_FINISH_S", 600)
    with ThreadPoolExecutor(2) as pool, socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as partial:
        idle.connect(str(path))
        partial.connect(str(path))
        partial.sendall(b"\x00\x00\x00\x05a")
        asked = pool.submit(local.exchange, path, b"abc", 30)
        assert slow.begun.wait(20)
        ending = pool.submit(slow.server.close)
        assert idle.recv(1) == b""
        assert partial.recv(1) == b""
        with pytest.raises(ProcessFailed):
            local.exchange(path, b"def", 5)
        slow.go_on.set()
        assert asked.result(20) == b"cba"
        ending.result(20)
    assert not path.exists()


def test_its_end_does_not_wait_for_ever(path, slow, monkeypatch):
    monkeypatch.setattr(local, "_FINISH_S", 0.05)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(local.exchange, path, b"abc", 30)
        assert slow.begun.wait(20)
        slow.server.close()
        with pytest.raises(ProcessFailed, match="ended without a reply"):
            asked.result(20)


def test_too_many_connections_are_ended_at_once(path):
    server = local.FrameServer(path, lambda frame: frame, limits=local.Limits(connections=1))
    server.start()
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        first.sendall(b"\x00\x00\x00\x01a")
        assert first.recv(5)
        with pytest.raises(ProcessFailed):
            local.exchange(path, b"abc", 5)
    server.close()


def test_a_frame_that_has_no_room_is_passed_over_and_its_sender_told(path):
    limits = local.Limits(room=100_000, busy=b"busy")
    begun, go_on = threading.Event(), threading.Event()

    def slow(frame):
        begun.set()
        go_on.wait(20)
        return frame[:1]

    server = local.FrameServer(path, slow, limits=limits)
    server.start()
    first = threading.Thread(target=local.exchange, args=(path, b"a" * 80_000, 20))
    first.start()
    assert begun.wait(20)
    kept = local.Connections(path)
    assert kept.exchange(b"b" * 80_000, 20) == b"busy"
    go_on.set()
    first.join()
    assert kept.exchange(b"c" * 80_000, 20) == b"c"
    assert kept.exchange(b"d" * 10, 20) == b"d"
    kept.close()
    server.close()


def test_a_listener_says_how_large_a_frame_may_be(path):
    server = local.FrameServer(path, lambda frame: frame[:1], limits=local.Limits(frame=10 * local.MAX_FRAME_BYTES))
    server.start()
    large = bytes(2 * local.MAX_FRAME_BYTES)
    assert local.Connections(path, largest=len(large)).exchange(large, 20) == b"\0"
    with pytest.raises(MessageInvalid):
        local.exchange(path, large, 20)
    server.close()


def test_only_processes_of_our_account_are_admitted(path, monkeypatch):
    server = local.FrameServer(path, lambda frame: frame, admits=local.is_own_account)
    server.start()
    assert local.exchange(path, b"abc", 20) == b"abc"
    own = os.geteuid()
    monkeypatch.setattr(local.os, "geteuid", lambda: own + 1)
    with pytest.raises(ProcessFailed):
        local.exchange(path, b"abc", 20)
    server.close()
