"""Parcels: what went in comes out, whatever bytes come; desk and courier give every query its own reply."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.errors import BrokerUnreachable, MessageInvalid
from silo_app.search.courier import Courier
from silo_app.search.desk import Desk
from silo_app.search.messages import ErrorMessage
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.wire import decode

NUMBERS = st.integers(0, 2**53)


@given(
    st.dictionaries(NUMBERS, st.tuples(st.binary(max_size=50), st.integers(0, 60_000)), max_size=20),
    st.sets(NUMBERS, max_size=10),
    st.text(max_size=64),
)
def test_what_was_packed_is_unpacked(contents, waiting, session):
    parcel = Parcel(
        tuple(Content(number, body, budget) for number, (body, budget) in contents.items()),
        tuple(waiting - contents.keys()),
        session,
    )
    frame = pack(parcel)
    assert is_parcel(frame)
    assert unpack(frame) == parcel


@given(st.binary(max_size=200), st.integers(0, 200))
def test_other_bytes_are_refused(noise, cut):
    whole = pack(Parcel((Content(1, b"abc", 5),), (2,), "s"))
    for frame in (noise, whole[:19] + noise, whole[: min(cut, len(whole) - 1)], whole + b"x"):
        with pytest.raises(MessageInvalid):
            unpack(frame)


UNSOUND = {
    "a number twice": Parcel((Content(1, b""), Content(1, b""))),
    "waiting for what it brings": Parcel((Content(1, b""),), (1,)),
    "a negative number": Parcel((Content(-1, b""),)),
    "a budget of an hour": Parcel((Content(1, b"", 3_600_000),)),
    "text for bytes": Parcel((Content(1, "text"),)),
    "a long session": Parcel(session="s" * 65),
    "too many": Parcel(tuple(Content(number, b"") for number in range(1025))),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_an_unsound_parcel_is_refused(kind):
    with pytest.raises(MessageInvalid, match="other types or values"):
        unpack(pack(UNSOUND[kind]))


class Office:
    """A broker that answers b"n" after n milliseconds, and never what begins with b"never"."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(40)
        self.desk = Desk(self.start)
        self.messages = 0

    def start(self, frame, done, asker):
        def work():
            if not frame.startswith(b"never"):
                time.sleep(int(frame) / 1000)
                done(asker.encode() + b":" + frame)

        self.pool.submit(work)

    def send(self, message, _timeout_s):
        self.messages += 1
        return self.desk.serve("north", message)


@pytest.fixture
def office():
    made = Office()
    yield made
    made.pool.shutdown(wait=False)


@pytest.fixture
def courier(office):
    made = Courier(office.send)
    yield made
    made.close()


def test_each_query_gets_its_own_reply_in_fewer_messages(office, courier):
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda n: courier.ask(b"%d" % (20 + n % 7), 5), range(200)))
    assert replies == [b"north:%d" % (20 + n % 7) for n in range(200)]
    assert office.messages < 150


def test_a_query_that_hangs_holds_up_no_other_and_ends_with_its_own_time(courier):
    taken = {}

    def ask(frame, timeout_s):
        start = time.monotonic()
        try:
            courier.ask(frame, timeout_s)
        except BrokerUnreachable:
            taken[frame] = ("no reply", time.monotonic() - start)
        else:
            taken[frame] = ("reply", time.monotonic() - start)

    threads = [threading.Thread(target=ask, args=(b"never%d" % n, 3.0)) for n in range(8)]
    threads += [threading.Thread(target=ask, args=(b"%d" % n, 30.0)) for n in range(10, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hung = [taken[frame] for frame in taken if frame.startswith(b"never")]
    others = [taken[frame] for frame in taken if not frame.startswith(b"never")]
    assert len(hung) == 8
    assert {outcome for outcome, _ in hung} == {"no reply"}
    assert {outcome for outcome, _ in others} == {"reply"}
    assert max(took for _, took in others) < min(took for _, took in hung)


def test_a_broker_that_is_gone_is_heard_of_at_once():
    def send(_message, _timeout_s):
        raise BrokerUnreachable("gone", remedy="none")

    courier = Courier(send)
    start = time.monotonic()
    with pytest.raises(BrokerUnreachable, match="gone"):
        courier.ask(b"1", 5)
    assert time.monotonic() - start < 1
    courier.close()


def test_a_broker_that_was_started_again_says_so(office, courier):
    outcome = []
    asking = threading.Thread(target=lambda: outcome.append(courier.ask(b"800", 5)))
    asking.start()
    time.sleep(0.2)
    office.desk = Desk(office.start)
    asking.join()
    assert "started again" in decode(outcome[0], ErrorMessage).problem


def test_a_broker_that_talks_nonsense_is_refused():
    courier = Courier(lambda _message, _timeout_s: b"noise")
    with pytest.raises(MessageInvalid):
        courier.ask(b"1", 5)
    courier.close()


def test_noise_and_single_frames_at_the_desk(office):
    assert office.desk.serve("north", b"5") == b"north:5"
    frame = pack(Parcel((Content(1, b"5"),)))
    assert decode(office.desk.serve("north", frame[:-1]), ErrorMessage).code == "message-invalid"
    assert unpack(office.desk.serve("north", frame)).contents == (Content(1, b"north:5"),)
    assert unpack(office.desk.serve("north", pack(Parcel()))).contents == ()


def test_one_asker_cannot_collect_what_another_asked(office):
    office.desk.serve("north", pack(Parcel((Content(1, b"300"),), session="s")))
    time.sleep(0.4)
    stolen = unpack(office.desk.serve("south", pack(Parcel((), (1,), "s")))).contents
    assert b"north" not in stolen[0].body
    assert unpack(office.desk.serve("north", pack(Parcel((), (1,), "s")))).contents[0].body == b"north:300"


def test_what_nobody_collects_is_forgotten(office):
    clock = [0.0]
    desk = Desk(office.start, clock=lambda: clock[0])
    desk.serve("north", pack(Parcel((Content(1, b"never"),), session="gone")))
    clock[0] = 1000
    desk.serve("north", pack(Parcel((Content(1, b"5"),), session="new")))
    assert set(desk._sessions) == {("north", "new")}
