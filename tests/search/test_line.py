"""Many queries in one message to a silo: what one of them is or needs harms no other; a failing silo is left alone."""

import threading
import time

import pytest

from silo_app.policy.refusal import RefusalCode
from silo_app.search.broker import Broker
from silo_app.search.envelope import open_reply, seal_reply
from silo_app.search.messages import Refusal, SearchResult, SiloAnswer
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.sealed import Broadcast
from silo_app.search.wire import decode, encode

NAMES = ("north", "south", "west")
UNHURRIED = 20_000


@pytest.fixture
def broker(transport):
    made = Broker(transport, NAMES, budget_ms=UNHURRIED)
    yield made
    made.close()


@pytest.fixture
def sealed(sealed):
    """As everywhere, but with time enough for a machine that is busy with other things."""
    return lambda *args, budget_ms=UNHURRIED, **fields: sealed(*args, budget_ms=budget_ms, **fields)


def states(result: SearchResult) -> dict[str, str]:
    return {report.silo: report.state.value for report in result.silos}


def codes(result: SearchResult) -> dict[str, str]:
    return {report.silo: report.code for report in result.silos}


def at_once(broker, frames, askers=("",)):
    results = [None] * len(frames)

    def ask(number):
        results[number] = broker.ask_all(frames[number], askers[number % len(askers)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class Slow:
    """A silo that takes a while for each message, and counts them."""

    def __init__(self, handler, seconds=0.03, change=lambda parcel: parcel):
        self.handler, self.seconds, self.change = handler, seconds, change
        self.sizes = []

    def __call__(self, message, _budget_s):
        time.sleep(self.seconds)
        reply = self.handler(message)
        self.sizes.append(len(unpack(message).contents) if is_parcel(message) else 1)
        return self.change(reply) if is_parcel(reply) else reply


def test_queries_in_flight_share_messages_and_each_gets_its_own_answer(broker, transport, silos, sealed, opened):
    # a message takes so long that the others are in line by then, however slow the machine is
    slow = transport.behaviour["south"] = Slow(silos["south"].handle, 0.5)
    frames = [sealed(silos["south"].gallery.stored[i % 20], k=1) for i in range(60)]
    results = [opened(frame, result) for frame, result in zip(frames, at_once(broker, frames), strict=True)]
    assert [result.hits[0].case for result in results] == [silos["south"].gallery.names[i % 20] for i in range(60)]
    assert sum(slow.sizes) == 60
    assert len(slow.sizes) < 20


def test_what_is_left_of_a_query_travels_with_it_also_when_it_is_alone(transport, sealed):
    """So a silo does not look for time to answer a query that the broker has given up."""
    broker = Broker(transport, NAMES)
    signed = sealed(budget_ms=30_000)
    decode(broker.search(encode(Broadcast(budget_ms=400, frame=signed))), SearchResult)
    broker.close()
    assert {silo for silo, _, _ in transport.parcels} == set(NAMES)
    for _, parcel, budget_s in transport.parcels:
        (content,) = parcel.contents
        assert content.body == signed
        assert 0 < content.budget_ms <= 380
        assert budget_s <= 0.38
        assert len(pack(parcel)) <= len(signed) + 40


def test_queries_that_may_take_long_hold_up_none_that_may_not(transport, silos, sealed):
    broker, go_on, begun = Broker(transport, NAMES, budget_ms=2000), threading.Event(), threading.Semaphore(0)

    def slow(message, budget_s):
        if budget_s > 2:
            begun.release()
            go_on.wait(20)
        return silos["south"].handle(message)

    transport.behaviour["south"] = slow
    patient = [threading.Thread(target=broker.ask_all, args=(sealed(),)) for _ in range(4)]
    for thread in patient:  # as many as one way to a silo sends at a time
        thread.start()
        assert begun.acquire(timeout=10)
    quick = broker.ask_all(sealed(budget_ms=2000))
    go_on.set()
    for thread in patient:
        thread.join()
    broker.close()
    assert states(quick)["south"] == "answered"


def _without_the_first(reply):
    return pack(Parcel(unpack(reply).contents[1:]))


def _with_noise_first(reply):
    first, *rest = unpack(reply).contents
    return pack(Parcel((Content(first.number, b"noise"), *rest)))


def _exchanged(reply):
    first, second, *rest = unpack(reply).contents
    return pack(Parcel((Content(first.number, second.body), Content(second.number, first.body), *rest)))


@pytest.mark.parametrize(("change", "harmed"), [(_without_the_first, 1), (_with_noise_first, 1), (_exchanged, 2)])
def test_nonsense_for_one_query_harms_no_other(change, harmed, transport, silos, sealed, opened):
    broker = Broker(transport, NAMES, budget_ms=UNHURRIED)
    transport.behaviour["south"] = Slow(silos["south"].handle, 0.1, change)
    frames = [sealed() for _ in range(20)]
    results = [opened(frame, result) for frame, result in zip(frames, at_once(broker, frames), strict=True)]
    broker.close()
    bad = [result for result in results if states(result)["south"] != "answered"]
    parcels = sum(size > 1 for size in transport.behaviour["south"].sizes)
    assert parcels >= 1
    assert len(bad) == harmed * parcels
    assert {states(result)["south"] for result in bad} == {"error" if change is _without_the_first else "invalid"}
    assert all(states(result)["north"] == states(result)["west"] == "answered" for result in results)


def test_a_reply_that_is_no_parcel_is_an_error_of_those_that_shared_it(broker, transport, silos, sealed):
    transport.behaviour["south"] = Slow(silos["south"].handle, 0.1, lambda _reply: b"noise")
    alone = broker.ask_all(sealed())  # of those at once the first may already have company
    results = [alone, *at_once(broker, [sealed() for _ in range(12)])]
    assert {states(result)["south"] for result in results} == {"answered", "error"}
    assert all(states(result)["north"] == "answered" for result in results)


def asked_until(broker, sealed, wanted):
    """Ask until the result is as wanted: a query ends with its own time, the line's judgement may come a moment later."""
    end = time.monotonic() + 30
    while not wanted(result := broker.ask_all(sealed())):
        assert time.monotonic() < end
        time.sleep(0.05)
    return result


def test_each_query_ends_with_its_own_time(broker, transport, sealed, faults):
    transport.behaviour["south"] = faults["late"]
    took = {}

    def ask(budget_ms):
        start = time.monotonic()
        result = broker.ask_all(sealed(budget_ms=budget_ms))
        took[budget_ms] = (time.monotonic() - start, states(result)["south"])

    threads = [threading.Thread(target=ask, args=(budget,)) for budget in (100, 700, 1900)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {state for _, state in took.values()} == {"late"}
    assert sorted(took) == sorted(took, key=lambda budget: took[budget][0])
    assert all(seconds < 1.9 for budget, (seconds, _) in took.items() if budget < 1900)


def test_a_silo_that_is_late_again_and_again_is_not_waited_for_and_found_again(transport, sealed, faults):
    broker = Broker(transport, NAMES, budget_ms=300, longest_ms=300)
    transport.behaviour["south"] = faults["late"]
    for _ in range(3):
        assert states(broker.ask_all(sealed()))["south"] == "late"
    result = asked_until(broker, sealed, lambda result: codes(result)["south"] == "left-alone")
    assert states(result)["south"] == "late"
    assert states(result)["north"] == states(result)["west"] == "answered"
    del transport.behaviour["south"]
    asked_until(broker, sealed, lambda result: states(result)["south"] == "answered")
    broker.close()


def test_no_query_is_spent_on_finding_out_whether_a_silo_is_back(transport, sealed, faults):
    broker = Broker(transport, NAMES, budget_ms=300, longest_ms=300)
    seen = []

    def gone(message, budget_s):
        seen.append(message)
        return faults["gone"](message, budget_s)

    transport.behaviour["south"] = gone
    asked_until(broker, sealed, lambda result: codes(result)["south"] == "left-alone")
    queries = len(seen)
    end = time.monotonic() + 30
    while len(seen) < queries + 2:
        assert time.monotonic() < end
        time.sleep(0.05)
        assert states(broker.ask_all(sealed()))["south"] == "unreachable"
    broker.close()
    assert all(message == pack(Parcel()) for message in seen[queries:])


def test_an_asker_in_a_hurry_has_no_silo_left_alone(broker, transport, silos, sealed):
    transport.behaviour["south"] = Slow(silos["south"].handle, 0.1)

    def hurried(message, budget_s):
        if budget_s < 0.1:
            raise_late(budget_s)
        return silos["south"].handle(message)

    def raise_late(budget_s):
        time.sleep(budget_s)
        from silo_app.search.transport import SiloLate

        raise SiloLate

    transport.behaviour["south"] = hurried
    for _ in range(6):
        assert states(broker.ask_all(sealed(budget_ms=10)))["south"] == "late"
    assert states(broker.ask_all(sealed()))["south"] == "answered"


def test_a_silo_that_refuses_is_never_left_alone(broker, transport, silos, sealed, opened):
    busy = Refusal.of("south", RefusalCode.BUSY)
    transport.behaviour["south"] = lambda frame, _: seal_reply(silos["south"].identity, frame, busy)
    for _ in range(6):
        frame = sealed()
        result = opened(frame, broker.ask_all(frame))
        assert (states(result)["south"], codes(result)["south"]) == ("busy", "busy")


def test_one_asker_that_floods_leaves_room_for_another(transport, silos, sealed):
    broker = Broker(transport, NAMES, budget_ms=UNHURRIED, in_flight_per_silo=16)
    slow = transport.behaviour["south"] = Slow(silos["south"].handle, 0.2)
    flood = [sealed() for _ in range(100)]
    flooded: list[SearchResult] = []
    thread = threading.Thread(target=lambda: flooded.extend(at_once(broker, flood, ("greedy",))))
    thread.start()
    time.sleep(0.05)
    modest = broker.ask_all(sealed(), "modest")
    thread.join()
    broker.close()
    assert states(modest)["south"] == "answered"
    assert {states(result)["south"] for result in flooded} == {"answered", "busy"}
    assert slow.sizes


@pytest.fixture
def indexed(stocked):
    """A silo with an index, and its index process."""
    from silo_app.search.server import IndexProcess

    silo = stocked("south")
    silo.index()
    process = IndexProcess(silo.home)
    yield silo, process
    process.close()


def test_a_parcel_at_the_index_process_is_answered_with_one_look_at_the_index(indexed, stocked, request_of):
    from silo_app.search.envelope import seal

    silo, process = indexed
    north = stocked.federation.identity("north")
    vectors = list(silo.vectors.values())
    good = [seal(north, request_of(vector, k=3)) for vector in vectors[:5]]
    mixed = {
        0: good[0],
        1: b"noise",
        2: good[1],
        3: good[0],  # again
        4: seal(stocked.federation.identity("west"), request_of()),
        5: seal(north, request_of(purpose="marketing")),
        6: seal(north, request_of(encoder_version="cd" * 16)),
        7: good[2],
        8: pack(Parcel((Content(1, good[3]),))),
    }
    reply = unpack(process.answer_frame(pack(Parcel(tuple(Content(n, body, 5000) for n, body in mixed.items())))))
    askers = {4: stocked.federation.identity("west")}
    said = {
        content.number: open_reply(
            askers.get(content.number, north), "south", mixed[content.number], content.body, SiloAnswer, Refusal
        )
        for content in reply.contents
    }
    assert {number for number, one in said.items() if isinstance(one, SiloAnswer)} == {0, 2, 7}
    for number, vector in ((0, vectors[0]), (2, vectors[1]), (7, vectors[2])):
        alone = said[number].hits
        assert alone[0].score == pytest.approx(1, abs=1e-3), vector.shape
        assert len(alone) == 3
    assert {number: one.code.value for number, one in said.items() if isinstance(one, Refusal)} == {
        1: "message-invalid",
        3: "replayed",
        4: "signature-invalid",
        5: "purpose-not-allowed",
        6: "other-encoder",
        8: "message-invalid",
    }
    lines = silo.home.audit.read_text().splitlines()
    assert len(lines) == len(mixed)


def test_a_bundle_at_the_index_process_is_answered_one_by_one(indexed, stocked, request_of):
    from silo_app.search.envelope import seal
    from silo_app.search.messages import Bundle, BundleReply

    silo, process = indexed
    north = stocked.federation.identity("north")
    vectors = list(silo.vectors.values())
    good = [encode(request_of(vector, k=3)) for vector in vectors[:3]]
    requests = (
        good[0],
        b"noise",
        good[1],
        good[0],  # again
        encode(request_of(asker="west")),
        encode(request_of(purpose="marketing")),
        good[2],
    )

    def bundle(asker="north", name="north"):
        made = Bundle(budget_ms=1000, asker=name, encoder_version="ab" * 32, k=3, requests=requests)
        return seal(stocked.federation.identity(asker), made)

    frame = bundle()
    reply = open_reply(north, "south", frame, process.answer_frame(frame), BundleReply, Refusal)
    said = [decode(one, SiloAnswer, Refusal) for one in reply.replies]
    forged = bundle("west")
    refused = open_reply(
        stocked.federation.identity("west"), "south", forged, process.answer_frame(forged), BundleReply, Refusal
    )
    with_others = pack(Parcel((Content(1, bundle(), 5000), Content(2, seal(north, request_of()), 5000))))
    beside = {content.number: content.body for content in unpack(process.answer_frame(with_others)).contents}
    assert [getattr(one, "code", "answered") for one in said] == [
        "answered",
        RefusalCode.MESSAGE_INVALID,
        "answered",
        RefusalCode.REPLAYED,
        RefusalCode.MESSAGE_INVALID,
        RefusalCode.PURPOSE,
        "answered",
    ]
    for place, vector in ((0, vectors[0]), (2, vectors[1]), (6, vectors[2])):
        assert said[place].hits[0].score == pytest.approx(1, abs=1e-3), vector.shape
        assert len(said[place].hits) == 3
    assert refused.code is RefusalCode.SIGNATURE_INVALID
    assert set(beside) == {1, 2}
    lines = silo.home.audit.read_text().splitlines()
    assert len(lines) == len(requests) + 1 + len(requests) + 1
    assert sum('"event":"answer"' in line for line in lines) == 3 + 1


def test_replies_that_are_more_than_a_bundle_holds_are_left_out_the_largest_first():
    from silo_app.search.together import roomy

    assert roomy([b"a" * 500, b"b" * 100, b"c" * 300], 600) == (b"", b"b" * 100, b"c" * 300)
    assert roomy([b"a" * 10, b""], 200) == (b"a" * 10, b"")
