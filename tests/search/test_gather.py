"""Gathering: alone at once, together under way, in turns, and never held up by a message that hangs."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.search.gather import Gatherer


class Way:
    """A way on which messages stay until they are let go."""

    def __init__(self, **options):
        self.sent: list[list[bytes]] = []
        self.arrived = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.gatherer = Gatherer(self._send, size_of=len, name="test", **options)

    def _send(self, batch):
        self.sent.append(batch)
        self.arrived.release()
        self.go.acquire(timeout=5)

    def wait(self):
        assert self.arrived.acquire(timeout=5)


@pytest.fixture
def way():
    made = []

    def make(**options):
        made.append(Way(**options))
        return made[-1]

    yield make
    for one in made:
        one.gatherer.close()
        for _ in range(100):
            one.go.release()


def test_one_alone_goes_at_once(way):
    one = way()
    assert one.gatherer.put(b"a")
    one.wait()
    assert one.sent == [[b"a"]]


def test_what_comes_meanwhile_goes_together(way):
    one = way(senders=1)
    one.gatherer.put(b"a")
    one.wait()
    for name in (b"b", b"c", b"d"):
        one.gatherer.put(name)
    one.go.release()
    one.wait()
    assert one.sent == [[b"a"], [b"b", b"c", b"d"]]


def test_a_message_that_hangs_holds_up_the_next_for_a_moment_only(way):
    one = way()
    one.gatherer.put(b"hangs")
    one.wait()
    start = time.monotonic()
    one.gatherer.put(b"b")
    one.wait()
    assert time.monotonic() - start < 1.0
    assert one.sent == [[b"hangs"], [b"b"]]


def test_what_is_left_of_a_full_message_goes_although_that_one_hangs(way):
    one = way(most=2, senders=8)
    one.gatherer.put(b"hangs")
    one.wait()
    for number in range(5):
        one.gatherer.put(b"%d" % number)
    while sum(map(len, one.sent)) < 6:
        one.wait()
    assert sorted(item for batch in one.sent for item in batch) == [b"0", b"1", b"2", b"3", b"4", b"hangs"]


def test_groups_take_turns_and_none_takes_every_place(way):
    one = way(senders=1, limit=8, most=4)
    one.gatherer.put(b"first")
    one.wait()
    assert [one.gatherer.put(b"greedy", "greedy") for _ in range(6)] == [True] * 4 + [False] * 2
    assert [one.gatherer.put(b"modest", "modest") for _ in range(2)] == [True] * 2
    one.go.release()
    one.wait()
    assert one.sent[1] == [b"greedy", b"modest", b"greedy", b"modest"]


def test_a_message_is_never_larger_than_allowed_but_for_one_item(way):
    one = way(senders=1, most_bytes=10)
    one.gatherer.put(b"first")
    one.wait()
    for size in (6, 6, 30, 1, 1):
        one.gatherer.put(bytes(size))
    for _ in range(4):
        one.go.release()
        one.wait()
    assert [[len(item) for item in batch] for batch in one.sent[1:]] == [[6], [6], [30], [1, 1]]


def test_a_sender_that_raises_does_not_end_the_way():
    heard = threading.Event()

    def send(batch):
        if batch == [b"bad"]:
            raise OSError
        heard.set()

    gatherer = Gatherer(send, size_of=len, name="test", senders=1)
    gatherer.put(b"bad")
    time.sleep(0.05)
    gatherer.put(b"good")
    assert heard.wait(5)
    gatherer.close()


@settings(max_examples=25, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 5), max_size=30), min_size=1, max_size=5),
    senders=st.integers(1, 4),
    most=st.integers(1, 8),
)
def test_everything_is_sent_once_in_its_groups_order(groups, senders, most):
    sent, lock, wanted = [], threading.Lock(), sum(map(len, groups))
    over = threading.Event()

    def send(batch):
        with lock:
            sent.extend(batch)
            assert len(batch) <= most
            if len(sent) == wanted:
                over.set()

    gatherer = Gatherer(send, size_of=lambda item: item[2], name="test", senders=senders, most=most, most_bytes=12)

    def put(name, sizes):
        for number, size in enumerate(sizes):
            assert gatherer.put((name, number, size), str(name))

    threads = [threading.Thread(target=put, args=each) for each in enumerate(groups)]
    for thread in threads:
        thread.start()
    assert not wanted or over.wait(10)
    gatherer.close()
    expected = {(name, number) for name, sizes in enumerate(groups) for number in range(len(sizes))}
    assert sorted(item[:2] for item in sent) == sorted(expected)
    if senders == 1:
        for name in range(len(groups)):
            numbers = [item[1] for item in sent if item[0] == name]
            assert numbers == sorted(numbers)


def test_one_alone_may_go_on_its_callers_own_thread(way):
    one = way()
    one.go.release()
    assert one.gatherer.alone(b"a")
    assert one.sent == [[b"a"]]
    one.gatherer.put(b"b")
    one.wait()
    one.wait()
    assert not one.gatherer.alone(b"c")  # something is under way
    one.gatherer.close()
    assert not one.gatherer.alone(b"d")


def test_what_comes_while_a_caller_sends_goes_without_it(way):
    one = way()
    caller = threading.Thread(target=one.gatherer.alone, args=(b"a",))
    caller.start()
    one.wait()
    one.gatherer.put(b"b")
    one.wait()
    assert one.sent == [[b"a"], [b"b"]]
    one.go.release(2)
    caller.join()


def test_threads_end_when_there_is_nothing_to_do_and_are_started_anew(way, monkeypatch):
    monkeypatch.setattr("silo_app.search.gather._IDLE_S", 0.05)
    one = way()
    for name in (b"a", b"b"):
        one.gatherer.put(name)
        one.wait()
        one.go.release()
        end = time.monotonic() + 5
        while one.gatherer._threads:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert one.sent == [[b"a"], [b"b"]]


def test_a_message_holds_so_much_weight_and_at_least_one_item(way):
    one = way(senders=1, most=5, weight_of=len)
    one.gatherer.put(b"first")
    one.wait()
    for name in (b"aaa", b"bb", b"c", b"heavy-one", b"d"):
        one.gatherer.put(name)
    for _ in range(4):
        one.go.release()
        one.wait()
    assert one.sent[1:] == [[b"aaa", b"bb"], [b"c"], [b"heavy-one"], [b"d"]]
