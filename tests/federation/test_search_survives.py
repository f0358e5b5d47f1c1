"""The search goes on: silos, index processes, search job and server are killed, frozen and cut off while hospitals ask.

A consortium of its own, with synthetic galleries. Whatever happens: no query lasts longer than its time and a fifth of a
second, every silo's state is named and true, and all answer again without anybody doing anything.
"""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import tempfile
import threading
import time
from collections import deque
from pathlib import Path

import psutil
import pytest

from benchmarks.searching import ENCODER, Lab, thread_count, unit_vectors
from silo_app.doctor import server
from silo_app.doctor.checked import Outcome
from silo_app.errors import SiloscopeError
from silo_app.search.ask import search_embedding

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]

BUDGET_S = 1.0
SLACK_S = 0.2
STALLED_S = 0.2
"""A query during which the machine stood still for so long says nothing of the silos."""
_PIDFD_GETFD = 438
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
ALL = {"hospital-a": "answered", "hospital-b": "answered", "hospital-c": "answered"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in memory where there is one: silos sync every answer, and a busy disk is no fault of theirs."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("survives")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="survives-") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def lab(folder):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with Lab.running(folder, 500) as made:
        yield made


class Stalls:
    """How long this machine itself stood still: a heartbeat that sleeps and syncs a file, as a query's audit does."""

    def __init__(self, file):
        self._file, self._seen, self._over = file, deque(maxlen=10_000), threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def since(self, start):
        return sum(length for at, length in list(self._seen) if at > start)

    def close(self):
        self._over.set()
        self._thread.join()

    def _beat(self):
        with self._file.open("ab") as file:
            while not self._over.is_set():
                start = time.monotonic()
                time.sleep(0.01)
                file.write(b".")
                file.flush()
                os.fsync(file.fileno())
                stall = time.monotonic() - start - 0.02
                if stall > 0.02:
                    self._seen.append((time.monotonic(), stall))


@pytest.fixture(scope="module")
def stalls(folder):
    made = Stalls(folder / "beat")
    yield made
    made.close()


@pytest.fixture
def ask(lab, stalls):
    """Ask as `hospital-a`, and return every silo's state, or "" for no result; how long it took is checked each time."""
    asker, query = lab.askers()[0], unit_vectors(3, 1)[0]

    def asking():
        start = time.monotonic()
        try:
            result = search_embedding(asker, query, encoder_version=ENCODER, budget_ms=int(BUDGET_S * 1000))
            found = {report.silo: report.state.value for report in result.silos}
            assert {hit.silo for hit in result.hits} <= {silo for silo, state in found.items() if state == "answered"}
        except SiloscopeError as error:
            found = error.code
        assert time.monotonic() - start < BUDGET_S + SLACK_S + stalls.since(start)
        return found

    return asking


@pytest.fixture
def meanwhile(ask, stalls):
    """Ask on and on from several threads while something happens; yields what came back while the machine itself ran."""

    @contextlib.contextmanager
    def asking(threads=4):
        over, found, failed = threading.Event(), [], []

        def work():
            while not over.is_set():
                start = time.monotonic()
                try:
                    states = ask()
                    if stalls.since(start) < STALLED_S:
                        found.append(states)
                except AssertionError as error:
                    failed.append(error)
                time.sleep(0.02)

        started = [threading.Thread(target=work) for _ in range(threads)]
        for thread in started:
            thread.start()
        try:
            yield found
        finally:
            over.set()
            for thread in started:
                thread.join()
        assert not failed, failed[0]

    return asking


def until(condition, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.1)


def own(lab, part):
    return lab.federation.pids(part)[0]


def test_all_answer(ask):
    assert ask() == ALL


def test_the_servers_clock_is_known_to_the_doctor(lab):
    found = server.clock(lab.home("hospital-a"))
    assert (found.outcome, found.seen.split(" ")[0]) == (Outcome.OK, "0.0")


@pytest.mark.parametrize("part", ["hospital-b.index", "hospital-b"])
def test_a_frozen_process_is_late_then_not_waited_for_and_then_found_again(part, lab, ask):
    pid = own(lab, part)
    os.kill(pid, signal.SIGSTOP)
    try:
        states = [ask() for _ in range(6)]
        start = time.monotonic()
        last = ask()
        assert time.monotonic() - start < BUDGET_S  # nobody waits any more
    finally:
        os.kill(pid, signal.SIGCONT)
    assert last == ALL | {"hospital-b": "late"}
    assert states == [ALL | {"hospital-b": "late"}] * 6
    until(lambda: ask() == ALL)


def test_frozen_while_queries_are_in_flight(lab, ask, meanwhile):
    pid = own(lab, "hospital-c")
    with meanwhile() as found:
        time.sleep(0.5)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2.5)
        os.kill(pid, signal.SIGCONT)
        until(lambda: found[-1] == ALL)
    assert ALL | {"hospital-c": "late"} in found
    assert {state for states in found for silo, state in states.items() if silo != "hospital-c"} == {"answered"}
    assert ask() == ALL


@contextlib.contextmanager
def connections(lab, silo):
    """Take hold of a silo's TCP connections to the server, from outside its processes."""
    port, taken = lab.federation.consortium.server.port, []
    for pid in lab.federation.pids(silo):
        for connection in psutil.Process(pid).net_connections(kind="tcp"):
            if connection.raddr and connection.raddr.port == port and connection.fd >= 0:
                process = os.pidfd_open(pid)
                descriptor = ctypes.CDLL(None).syscall(_PIDFD_GETFD, process, connection.fd, 0)
                os.close(process)
                if descriptor >= 0:
                    taken.append(socket.socket(fileno=descriptor))
    assert taken
    try:
        yield taken
    finally:
        for one in taken:
            one.close()


@contextlib.contextmanager
def silence(taken):
    """Let nothing through that comes for these connections, not even acknowledgements: a cable that was pulled."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0 bytes of any packet
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    for one in taken:
        one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    try:
        yield
    finally:
        for one in taken:
            one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def test_a_network_that_is_silent_before_during_and_after_queries(lab, ask, meanwhile):
    with connections(lab, "hospital-b") as taken:
        with silence(taken):  # before
            assert ask() == ALL | {"hospital-b": "late"}
        until(lambda: ask() == ALL)
        with meanwhile() as found:
            time.sleep(0.3)
            with silence(taken):  # during
                time.sleep(2.5)
            until(lambda: found[-1] == ALL)
    assert ALL | {"hospital-b": "late"} in found
    assert {state for states in found for silo, state in states.items() if silo != "hospital-b"} == {"answered"}
    assert ask() == ALL


def test_connections_that_are_cut_are_made_again(lab, ask, meanwhile):
    with meanwhile() as found:
        time.sleep(0.3)
        with connections(lab, "hospital-b") as taken:
            for one in taken:
                one.shutdown(socket.SHUT_RDWR)
        time.sleep(1.0)
        until(lambda: found[-1] == ALL)
    assert {states["hospital-b"] for states in found} <= {"answered", "unreachable", "late"}
    assert {state for states in found for silo, state in states.items() if silo != "hospital-b"} == {"answered"}


@pytest.mark.parametrize(("part", "limit_s"), [("hospital-b.index", 20.0), ("hospital-b", 60.0)])
def test_killed_while_queries_are_in_flight_and_back_by_itself(part, limit_s, lab, ask, meanwhile):
    with meanwhile() as found:
        time.sleep(0.5)
        os.kill(own(lab, part), signal.SIGKILL)
        until(lambda: any(states != ALL for states in found))
        until(lambda: found[-1] == ALL, limit_s)
    assert {states["hospital-b"] for states in found} <= {"answered", "unreachable", "late"}
    assert "unreachable" in {states["hospital-b"] for states in found}
    assert {state for states in found for silo, state in states.items() if silo != "hospital-b"} == {"answered"}
    assert ask() == ALL


def test_the_search_job_is_killed_and_submitted_again_by_itself(lab, ask, meanwhile):
    job = next(pid for pid in lab.federation.pids("server") if "runner_process" in " ".join(psutil.Process(pid).cmdline()))
    with meanwhile() as found:
        time.sleep(0.3)
        os.kill(job, signal.SIGKILL)
        until(lambda: any(states != ALL for states in found))
        until(lambda: found[-1] == ALL)
    assert {"hospital-a": "answered"} in found
    assert {states["hospital-a"] for states in found} == {"answered"}  # a hospital's own cases need no server
    assert ask() == ALL


def test_the_server_is_killed_and_all_is_well_again_without_a_person(lab, ask, meanwhile):
    with meanwhile() as found:
        time.sleep(0.3)
        os.kill(own(lab, "server"), signal.SIGKILL)
        until(lambda: any(states != ALL for states in found))
        until(lambda: found[-1] == ALL, 90.0)
    assert {"hospital-a": "answered"} in found
    assert {states["hospital-a"] for states in found} == {"answered"}
    until(
        lambda: all(
            search_embedding(asker, unit_vectors(3, 1)[0], encoder_version=ENCODER).answered == 3 for asker in lab.askers()
        )
    )
    assert ask() == ALL


def test_threads_do_not_pile_up(lab):
    """Pools grow a little yet, at no certain moment; what one query in a hundred leaves behind would be more than that."""
    lab.load(unit_vectors(5, 800), 16)
    before = thread_count(lab.asked_pids())
    for seed in range(3):
        lab.load(unit_vectors(seed, 400), 8)
    assert thread_count(lab.asked_pids()) <= before + 12
