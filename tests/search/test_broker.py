"""The broker: every silo at once, under one deadline, and always the true state of each."""

import threading
import time

import pytest

from silo_app.errors import ConfigInvalid
from silo_app.policy.refusal import RefusalCode
from silo_app.search.broker import Broker
from silo_app.search.envelope import conceal, keyed, open_reply, peek_request, seal_reply, unkeyed
from silo_app.search.gathering import Gathering, Reply
from silo_app.search.messages import (
    ErrorMessage,
    Refusal,
    Relay,
    SearchResult,
    SiloAnswer,
    SiloReport,
    Silos,
    SiloState,
    Who,
)
from silo_app.search.parcels import Content, Parcel, pack
from silo_app.search.sealed import Broadcast
from silo_app.search.wire import decode, encode
from silo_app.session_key import LOCKED_BYTES

NAMES = ("north", "south", "west")


@pytest.fixture
def broker(transport):
    made = Broker(transport, NAMES, budget_ms=1000)
    yield made
    made.close()


@pytest.fixture
def ask(broker, opened, sealed):
    """Ask as `north` does, and read what comes back."""

    def asked(**fields) -> SearchResult:
        frame = sealed(**fields)
        return opened(frame, broker.ask_all(frame))

    return asked


def states(result: SearchResult) -> dict[str, str]:
    return {report.silo: report.state.value for report in result.silos}


def test_all_silos_answer_and_are_merged(ask):
    result = ask(k=7)
    assert states(result) == dict.fromkeys(NAMES, "answered")
    assert len(result.hits) == 7
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    assert {report.indexed for report in result.silos} == {20}


def test_a_late_silo_costs_its_own_answers_and_no_more_than_the_deadline(ask, transport, faults):
    transport.behaviour["south"] = faults["late"]
    start = time.monotonic()
    result = ask(budget_ms=500)
    assert time.monotonic() - start < 1.5  # a busy machine's scheduler included
    assert states(result) == {"north": "answered", "south": "late", "west": "answered"}
    assert {hit.silo for hit in result.hits} == {"north", "west"}


TIMES = [
    ({}, 10_000, None, 9.5, "what the asker says, however long the usual time is"),
    ({}, 10_000, 400, 0.38, "what is left of that"),
    ({}, 400, 10_000, 0.38, "no more than was signed"),
    ({"longest_ms": 2000}, 10_000, None, 1.9, "no more than the job allows"),
    ({"longest_ms": 2000}, 10_000, 5000, 1.9, "nor if so much is left"),
]


@pytest.mark.parametrize(
    ("settings", "signed_ms", "left_ms", "given_s"), [one[:4] for one in TIMES], ids=[t[4] for t in TIMES]
)
def test_a_silo_has_the_least_of_what_asker_clock_and_job_allow(settings, signed_ms, left_ms, given_s, transport, sealed):
    broker, frame = Broker(transport, NAMES, **settings), sealed(budget_ms=signed_ms)
    broker.search(frame if left_ms is None else encode(Broadcast(budget_ms=left_ms, frame=frame)))
    broker.close()
    assert len(transport.parcels) == 3
    assert all(given_s - 0.3 < budget_s <= given_s for _, _, budget_s in transport.parcels)


@pytest.mark.parametrize("settings", [{"budget_ms": 0}, {"budget_ms": 60_001}, {"longest_ms": 0}, {"longest_ms": 600_000}])
def test_times_that_no_silo_can_be_given_are_refused(settings, transport):
    with pytest.raises(ConfigInvalid, match="silos cannot be given") as raised:
        Broker(transport, NAMES, **settings)
    assert raised.value.where == "jobs/search: silo_budget_ms, longest_budget_ms"


def test_a_question_to_one_silo_has_no_more_than_the_job_allows(transport, faults):
    broker = Broker(transport, NAMES, longest_ms=200)
    transport.behaviour["west"] = faults["late"]
    start = time.monotonic()
    relayed = broker.relay(Relay(silo="west", budget_ms=30_000, frame=pack(Parcel((Content(0, b"question"),)))))
    broker.close()
    assert (relayed.state, time.monotonic() - start < 5) == (SiloState.LATE, True)


def test_who_asks_who_is_there_hears_how_long_silos_are_waited_for(transport):
    for settings, told in (({}, (1000, 60_000)), ({"budget_ms": 3000, "longest_ms": 2000}, (2000, 2000))):
        broker = Broker(transport, NAMES, **settings)
        silos = decode(broker.search(encode(Who())), Silos)
        broker.close()
        assert (silos.budget_ms, silos.longest_ms) == told


def test_a_transport_that_hangs_past_the_deadline_is_given_up(ask, transport):
    release = threading.Event()
    transport.behaviour["west"] = lambda _message, _budget: release.wait(5) and b""
    start = time.monotonic()
    result = ask(budget_ms=500)
    took = time.monotonic() - start
    release.set()
    assert took < 1.5
    assert states(result)["west"] == "late"


def test_a_gone_silo_is_reported_at_once(ask, transport, faults):
    transport.behaviour["north"] = faults["gone"]
    result = ask()
    assert states(result) == {"north": "unreachable", "south": "answered", "west": "answered"}
    assert result.took_us < 900_000


def test_all_silos_gone_is_a_result_without_hits(ask, transport, faults):
    transport.behaviour = dict.fromkeys(NAMES, faults["gone"])
    result = ask()
    assert result.hits == ()
    assert states(result) == dict.fromkeys(NAMES, "unreachable")
    own, *others = sorted(result.silos, key=lambda report: report.silo != "north")
    assert "`silo serve` starts it" in own.public  # what is one's own, one can start
    assert {report.public for report in others} == {""}


def _raise(_message, _budget):
    raise RuntimeError("a bug in a transport")


def _answer(change):
    """Make a silo that alters its true answer, and seals it."""

    def behave(silo, north):
        def ask(message, _budget):
            true = open_reply(north, silo.name, message, silo.handle(message), SiloAnswer, Refusal)
            return seal_reply(silo.identity, message, change(true))

        return ask

    return behave


MAD = {
    "noise": lambda *_silos: lambda *_: b"\xc1noise",
    "nothing": lambda *_silos: lambda *_: b"",
    "a bug": lambda *_silos: _raise,
    "another silo's name": _answer(lambda a: a.model_copy(update={"silo": "west"})),
    "another query": _answer(lambda a: a.model_copy(update={"query_id": "0" * 32})),
    "another encoder": _answer(lambda a: a.model_copy(update={"encoder_version": "cd" * 32})),
    "too many hits": _answer(lambda a: a.model_copy(update={"hits": a.hits[:1] + a.hits})),
    "a case twice": _answer(lambda a: a.model_copy(update={"hits": a.hits[:1] * 2})),
    "a score above one": _answer(lambda a: a.model_copy(update={"hits": (a.hits[0].model_copy(update={"score": 7.0}),)})),
    "a score that is no number": _answer(
        lambda a: a.model_copy(update={"hits": (a.hits[0].model_copy(update={"score": float("nan")}),)})
    ),
}


@pytest.mark.parametrize("kind", MAD)
def test_nonsense_from_a_silo_is_its_own_error(kind, ask, transport, silos, authority):
    transport.behaviour["south"] = MAD[kind](silos["south"], authority.identity("north"))
    result = ask()
    seen = "error" if kind in {"nothing", "a bug"} else "invalid"  # what came is sealed: its asker finds it to be nonsense
    assert states(result) == {"north": "answered", "south": seen, "west": "answered"}
    assert "south" not in {hit.silo for hit in result.hits}


REFUSALS = {
    RefusalCode.BUSY: SiloState.BUSY,
    RefusalCode.PURPOSE: SiloState.DENIED,
    RefusalCode.GALLERY_TOO_SMALL: SiloState.DENIED,
    RefusalCode.SIGNATURE_INVALID: SiloState.DENIED,
    RefusalCode.NOT_READY: SiloState.NOT_READY,
    RefusalCode.OTHER_ENCODER: SiloState.OTHER_ENCODER,
    RefusalCode.INDEX_DAMAGED: SiloState.ERROR,
}


@pytest.mark.parametrize(("code", "state"), REFUSALS.items())
def test_a_refusal_is_a_state_with_its_code(code, state, ask, transport, silos):
    transport.behaviour["west"] = lambda frame, _: seal_reply(silos["west"].identity, frame, Refusal.of("west", code))
    report = ask().silos[2]
    assert (report.silo, report.state, report.code) == ("west", state, code.value)
    assert report.public


@pytest.mark.parametrize("public", ["\x1b[2Jnorth: answered", "\u202ederewsna :htron", "a\nnorth: answered"])
def test_a_sentence_that_would_act_on_a_terminal_is_not_used(public, ask, transport, silos):
    told = Refusal.of("west", RefusalCode.BUSY).model_copy(
        update={"public": public}
    )  # unchecked: as an altered silo sends it
    transport.behaviour["west"] = lambda frame, _: seal_reply(silos["west"].identity, frame, told)
    report = ask().silos[2]
    assert (report.silo, report.state, report.code, report.public) == ("west", "invalid", "answer-invalid", "")


def test_a_silo_with_another_encoder_is_named_and_not_mixed(ask, silos):
    silos["south"].encoder = "ef" * 32
    result = ask()
    assert states(result)["south"] == "other-encoder"
    assert result.silos[1].encoder_version == "ef" * 32
    assert {hit.silo for hit in result.hits} <= {"north", "west"}


def test_the_broker_cannot_read_what_silos_reply(broker, sealed, silos):
    result = broker.ask_all(sealed())
    assert result.hits == ()
    assert [one.silo for one in result.sealed] == list(NAMES)
    said = b"".join(one.content for one in result.sealed)
    assert not any(case.encode() in said for silo in silos.values() for case in silo.gallery.names)
    for word in (b"hits", b"score", b"card", b"findings", b"answer"):
        assert word not in said


def test_a_silo_that_floods_the_result_costs_its_own_answer(broker, ask, transport):
    transport.behaviour["west"] = lambda *_: b"x" * (SiloAnswer.max_bytes + 1_000_000)
    result = ask()
    assert states(result) == {"north": "answered", "south": "answered", "west": "error"}


def test_what_is_more_than_a_result_holds_is_left_out_the_largest_first(sealed):
    names = [f"silo-{number}" for number in range(6)]
    request = peek_request(sealed())
    query = Gathering(request, b"", names, 1.0, lambda _query: None)
    for number, name in enumerate(names):
        report = SiloReport(silo=name, state=SiloState.ANSWERED)
        query.heard(name, Reply(report, b"x" * ((number + 1) * 1_000_000)))
    result = query.result()
    assert [one.silo for one in result.sealed] == names[:5]
    assert [report.code for report in result.silos] == [""] * 5 + ["answer-too-large"]
    assert len(encode(result)) < SearchResult.max_bytes


def test_what_is_no_request_gets_an_error_message(broker):
    for frame in (b"", b"\x00" * 100, b"x" * 200_000):
        assert decode(broker.search(frame), ErrorMessage).code in {"message-invalid", "signature-invalid"}


def test_one_hanging_silo_is_busy_for_the_next_query_and_holds_up_no_other(transport, sealed):
    broker = Broker(transport, NAMES, budget_ms=500, in_flight_per_silo=2)
    release = threading.Event()
    transport.behaviour["west"] = lambda *_: release.wait(5) and b""
    seen = [states(broker.ask_all(sealed())) for _ in range(4)]
    release.set()
    broker.close()
    assert [state["west"] for state in seen] == ["late", "late", "busy", "busy"]
    assert all(state["north"] == state["south"] == "answered" for state in seen)


def test_queries_in_flight_do_not_mix(transport, sealed, silos, opened):
    broker = Broker(transport, NAMES, budget_ms=30_000)  # however busy the machine is
    frames = [sealed(silos["south"].gallery.stored[i], k=1, budget_ms=30_000) for i in range(20)]
    results: dict[int, SearchResult] = {}
    threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, broker.ask_all(frames[i]))) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = silos["south"].gallery.names
    assert [opened(frames[i], results[i]).hits[0].case for i in range(20)] == names[:20]
    broker.close()


def test_each_silo_gets_what_opens_the_question_for_it_alone(transport, broker, authority, request_of):
    north, seen = authority.identity("north"), {}
    signed, _ = conceal(north, request_of())
    keys = {name: name.encode().ljust(LOCKED_BYTES, b".") for name in ("south", "west", "nobody")}
    for name in NAMES:
        transport.behaviour[name] = lambda frame, _budget, name=name: seen.setdefault(name, frame) and b"sealed"
    message = Broadcast(budget_ms=1000, frame=signed, keys=keys)
    result = decode(broker.search(encode(message)), SearchResult)
    assert states(result) == dict.fromkeys(NAMES, "answered")
    assert seen == {"north": signed, "south": keyed(signed, keys["south"]), "west": keyed(signed, keys["west"])}
    assert unkeyed(seen["west"]) == (signed, keys["west"])


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, NAMES),
        ({"without": "north"}, ("south", "west")),
        ({"only": ("west", "nobody")}, ("west",)),
        ({"only": ("north", "west"), "without": "north"}, ("west",)),
        ({"only": ("nobody",)}, ()),
    ],
)
def test_some_silos_are_asked(fields, asked, broker, authority, request_of):
    signed, _ = conceal(authority.identity("north"), request_of())
    result = decode(broker.search(encode(Broadcast(budget_ms=1000, frame=signed, **fields))), SearchResult)
    assert tuple(report.silo for report in result.silos) == asked


def test_the_silos_vouchers_are_told_to_whoever_asks_who_is_there(broker):
    broker.met("south", b"voucher")
    broker.met("nobody", b"voucher")
    broker.met("west", b"")
    broker.met("north", b"x" * 100_000)
    told = decode(broker.search(encode(Who())), Silos)
    assert told.silos == NAMES
    assert told.vouchers == {"south": b"voucher"}


def test_who_joins_is_asked_and_who_left_is_told_nothing_more(transport, broker, ask):
    broker.ask_these(("north", "south"))
    assert set(states(ask())) == {"north", "south"}
    broker.ask_these(("west", "north", "south"))
    assert states(ask()) == dict.fromkeys(NAMES, "answered")


def test_a_silo_that_left_is_not_among_those_that_are_there(broker):
    broker.met("west", b"voucher")
    broker.ask_these(("north", "south"))
    told = decode(broker.search(encode(Who())), Silos)
    assert (told.silos, told.vouchers) == (("north", "south"), {})
    broker.met("west", b"voucher")
    message = Relay(silo="west", frame=b"question", budget_ms=1000)
    assert broker.relay(message).state is SiloState.UNREACHABLE
    assert decode(broker.search(encode(Who())), Silos).vouchers == {}


def test_silos_that_stay_keep_what_is_known_of_them(broker):
    broker.met("north", b"voucher")
    line = broker._lines["north"]
    broker.ask_these(("north", "east"))
    assert broker._lines["north"] is line
    assert decode(broker.search(encode(Who())), Silos).vouchers == {"north": b"voucher"}
