"""Waiting for silos: for all that live, as long as the deadline allows; simulated behind the controller's interface."""

import threading
import time
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app.errors import UpdateRefused
from silo_app.flare import round_trip, words
from silo_app.flare.presence import LONG
from silo_app.flare.round_trip import Patience, ask

ALL = ("a", "b", "c")


class SimulatedController:
    """What `ask` uses of NVFlare's controller: each silo replies after its delay, or never."""

    def __init__(self, replies, gone=()):
        self.replies, self.gone, self.cancelled, self.logged = replies, set(gone), False, []

    def broadcast(self, task, fl_ctx, targets, min_responses):
        assert min_responses == len(targets)
        for silo in targets:
            if silo in self.replies:
                threading.Timer(self.replies[silo][0], self._deliver, (task, silo, fl_ctx)).start()

    def _deliver(self, task, silo, fl_ctx):
        client_task = SimpleNamespace(client=SimpleNamespace(name=silo), result=self.replies[silo][1])
        task.result_received_cb(client_task=client_task, fl_ctx=fl_ctx)
        assert client_task.result is None  # an update must not stay in memory

    def get_client_disconnect_time(self, silo):
        return time.time() if silo in self.gone else None

    def cancel_task(self, task, completion_status):
        task.completion_status = completion_status
        self.cancelled = True

    def log_error(self, fl_ctx, text):
        self.logged.append(text)

    log_exception = log_error


@dataclass
class Known:
    gone: str
    absent: str
    silent: str = ""

    def is_gone(self, silo, *, unreached):
        assert unreached == 4
        return silo in self.gone

    def is_absent(self, silo):
        return silo in self.gone + self.absent

    def is_silent(self, silo):
        return silo in self.silent


def ok(after=0.0):
    return after, make_reply(ReturnCode.OK)


def refusing(code="not-ready"):
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply[words.REFUSAL] = {"code": code, "public": "Not ready."}
    return 0.0, reply


def asked(controller, *, take=None, gone="", absent="", silent="", **patience):
    settings = {"enough": 2, "deadline_s": 10.0, "straggler_s": 10.0} | patience
    start = time.monotonic()
    patience = Patience(**settings)
    answers = ask(controller, "task", Shareable(), ALL, patience, FLContext(), Signal(), Known(gone, absent, silent), take)
    return answers, time.monotonic() - start


def test_all_answer():
    answers, seconds = asked(SimulatedController({silo: ok() for silo in ALL}))
    assert set(answers.accepted) == set(ALL)
    assert not answers.refused
    assert not answers.missing
    assert seconds < 5


def test_a_straggler_gets_its_while_and_is_then_late():
    answers, seconds = asked(SimulatedController({"a": ok(), "b": ok()}), straggler_s=0.4)
    assert set(answers.accepted) == {"a", "b"}
    assert answers.missing == {"c": "late"}
    assert seconds >= 0.4


def test_nobody_waits_for_a_silo_that_is_gone():
    answers, seconds = asked(SimulatedController({"a": ok(), "b": ok()}, gone="c"))
    assert answers.missing == {"c": "gone"}
    assert seconds < 5


def test_nobody_waits_for_silos_whose_processes_are_gone_though_too_few_have_answered():
    answers, seconds = asked(SimulatedController({"a": ok()}), gone="bc")
    assert answers.missing == {"b": "gone", "c": "gone"}
    assert seconds < 5


def test_a_silo_that_was_not_there_when_last_asked_gets_its_while_and_is_then_gone():
    controller = SimulatedController({"a": ok(), "b": ok()})
    answers, seconds = asked(controller, straggler_s=0.4, absent="c")
    assert answers.missing == {"c": "gone"}
    assert seconds >= 0.4


def test_a_silo_that_is_connected_and_says_nothing_is_named_so():
    answers, seconds = asked(SimulatedController({"a": ok(), "b": ok()}), gone="c", silent="c")
    assert answers.missing == {"c": "silent"}
    assert seconds < 5


def test_nobody_waits_for_a_silo_that_missed_the_last_task():
    answers, seconds = asked(SimulatedController({"a": ok(), "b": ok()}), unreliable=frozenset("c"))
    assert answers.missing == {"c": "late"}
    assert seconds < 5


def test_an_unreliable_silo_that_answers_in_time_counts():
    answers, _ = asked(SimulatedController({"a": ok(0.3), "b": ok(0.3), "c": ok()}), unreliable=frozenset("c"))
    assert set(answers.accepted) == set(ALL)


def test_the_deadline_ends_a_task_below_enough():
    answers, _ = asked(SimulatedController({"a": ok()}), deadline_s=0.4)
    assert set(answers.accepted) == {"a"}
    assert answers.missing == {"b": "late", "c": "late"}


def test_a_refusal_is_named_with_its_code():
    answers, _ = asked(SimulatedController({"a": ok(), "b": ok(), "c": refusing()}))
    assert answers.refused == {"c": {"code": "not-ready", "public": "Not ready."}}


def test_a_reply_that_cannot_be_used_costs_its_sender_only():
    def take(silo, _reply):
        if silo == "b":
            raise UpdateRefused("it is of another network", remedy="Look at it.")

    controller = SimulatedController({silo: ok() for silo in ALL})
    answers, _ = asked(controller, take=take)
    assert set(answers.accepted) == {"a", "c"}
    assert answers.refused["b"]["code"] == "update-refused"
    assert "another network" not in str(answers.refused)
    assert controller.logged


def test_a_reply_that_trips_our_own_code_costs_its_sender_only():
    controller = SimulatedController({silo: ok() for silo in ALL})
    answers, _ = asked(controller, take=lambda silo, reply: reply["absent"] if silo == "b" else None)
    assert set(answers.accepted) == {"a", "c"}
    assert answers.refused["b"]["code"] == "update-refused"
    assert controller.logged == ["b: its reply cannot be used"]


class Clock:
    """Time that passes only where somebody waits, a second at once; what is due then happens."""

    def __init__(self):
        self.now, self._due = 0.0, []

    def monotonic(self):
        return self.now

    def sleep(self, _seconds):
        self.now += 1.0
        for at, happen in [one for one in self._due if one[0] <= self.now]:
            self._due.remove((at, happen))
            happen()

    def at(self, seconds, happen):
        self._due.append((seconds, happen))


@dataclass
class Cut:
    """A silo is not reached from the beginning until `until`; one question takes three seconds."""

    clock: Clock
    silo: str
    until: float

    def is_absent(self, silo):
        return silo == self.silo and self.clock.now < self.until

    def is_gone(self, silo, *, unreached):
        return self.is_absent(silo) and self.clock.now / 3 >= unreached

    def is_silent(self, silo):
        return False


def waited(monkeypatch, replies, *, until=0.0, **patience):
    """Wait for `ALL` of which c is cut off, and each replies after its seconds or never; return answers and seconds."""
    clock = Clock()
    monkeypatch.setattr(round_trip, "time", clock)

    class Timed(SimulatedController):
        def broadcast(self, task, fl_ctx, targets, min_responses):
            for silo, after in replies.items():
                clock.at(after, partial(self._deliver, task, silo, fl_ctx))

    controller, cut = Timed({silo: ok() for silo in replies}), Cut(clock, "c", until)
    given = Patience(**({"enough": 2, "deadline_s": 600.0, "straggler_s": 60.0} | patience))
    found = ask(controller, "task", Shareable(), ALL, given, FLContext(), Signal(), cut)
    return found, clock.now


TO_BEGIN = {"unreached": LONG, "held": True}


def test_a_silo_that_is_not_reached_has_two_minutes_though_enough_have_answered(monkeypatch):
    found, seconds = waited(monkeypatch, {"a": 1, "b": 2}, until=9e9, **TO_BEGIN)
    assert (found.missing, seconds) == ({"c": "gone"}, pytest.approx(120, abs=3))


def test_a_silo_that_is_reached_again_has_as_long_as_the_others(monkeypatch):
    found, _ = waited(monkeypatch, {"a": 1, "b": 2, "c": 145}, until=90, **TO_BEGIN)
    assert set(found.accepted) == set(ALL)
    found, seconds = waited(monkeypatch, {"a": 1, "b": 2}, until=90, **TO_BEGIN)
    assert (found.missing, seconds) == ({"c": "late"}, pytest.approx(150, abs=3))


def test_a_silo_that_comes_and_goes_has_the_deadline_at_most(monkeypatch):
    monkeypatch.setattr(Cut, "is_gone", lambda *_args, **_kwargs: False)
    found, seconds = waited(monkeypatch, {"a": 1, "b": 2}, until=9e9, **TO_BEGIN)
    assert (found.missing, seconds) == ({"c": "gone"}, pytest.approx(600, abs=3))


def test_in_a_round_the_time_of_stragglers_passes_for_one_that_is_not_reached_too(monkeypatch):
    _, seconds = waited(monkeypatch, {"a": 1, "b": 2}, until=9e9, straggler_s=5.0)
    assert seconds == pytest.approx(8, abs=2)


@pytest.mark.parametrize("given", [None, {"code": 5, "public": "x"}, "text", {"code": "x" * 1000, "public": "y" * 1000}])
def test_a_malformed_refusal_is_bounded(given):
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply[words.REFUSAL] = given
    answers, _ = asked(SimulatedController({"a": ok(), "b": ok(), "c": (0.0, reply)}))
    assert len(answers.refused["c"]["code"]) <= 64
    assert len(answers.refused["c"]["public"]) <= 200
