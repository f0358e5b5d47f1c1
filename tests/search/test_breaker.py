"""The breaker: a silo that fails in a row is left alone, looked at soon, and tried with one query."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from silo_app.search.breaker import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker
from silo_app.search.messages import SiloState


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def opened(clock):
    breaker = Breaker(clock, 1.0)
    for _ in range(FAILURES):
        assert breaker.left_alone is None
        breaker.failed(SiloState.LATE)
    return breaker


def test_three_failures_in_a_row_leave_it_alone_and_its_state_is_named():
    assert opened(Clock()).left_alone is SiloState.LATE


@given(st.lists(st.sampled_from(["answered", "failed", "failed"]), max_size=40))
def test_without_three_in_a_row_it_is_always_asked(outcomes):
    breaker, row = Breaker(Clock(), 1.0), 0
    for outcome in outcomes:
        row = 0 if outcome == "answered" else row + 1
        if row == FAILURES:
            return
        breaker.answered() if outcome == "answered" else breaker.failed(SiloState.UNREACHABLE)
        assert breaker.left_alone is None


@given(st.lists(st.floats(0, 0.99), min_size=FAILURES, max_size=20))
def test_who_is_in_a_hurry_says_nothing_of_the_silo(budgets):
    breaker = Breaker(Clock(), 1.0)
    for budget in budgets:
        breaker.asked(SiloState.LATE, budget)
    assert breaker.left_alone is None
    for _ in range(FAILURES):
        breaker.asked(SiloState.LATE, 1.0)
    assert breaker.left_alone is SiloState.LATE


@given(st.sampled_from([SiloState.UNREACHABLE, SiloState.ERROR]), st.floats(0, 2))
def test_nobody_there_is_a_failure_however_short_the_time(state, budget):
    breaker = Breaker(Clock(), 1.0)
    for _ in range(FAILURES):
        breaker.asked(state, budget)
    assert breaker.left_alone is state
    breaker.asked(SiloState.ANSWERED, budget)
    assert breaker.left_alone is None


def test_it_is_looked_at_once_after_a_short_pause():
    clock = Clock()
    breaker = opened(clock)
    assert not breaker.wants_probe()
    clock.now += FIRST_PAUSE_S
    assert breaker.wants_probe()
    assert not breaker.wants_probe()


def test_a_probe_that_is_answered_lets_one_query_try():
    clock = Clock()
    breaker = opened(clock)
    clock.now += FIRST_PAUSE_S
    breaker.probed(SiloState.ANSWERED)
    assert breaker.left_alone is None
    breaker.failed(SiloState.LATE)
    assert breaker.left_alone is SiloState.LATE


def test_an_answer_forgives_everything():
    breaker = opened(Clock())
    breaker.probed(SiloState.ANSWERED)
    breaker.answered()
    breaker.failed(SiloState.LATE)
    assert breaker.left_alone is None


def test_a_probe_tells_how_the_silo_is_by_now():
    breaker = opened(Clock())
    breaker.probed(SiloState.UNREACHABLE)
    assert breaker.left_alone is SiloState.UNREACHABLE


class Life(RuleBasedStateMachine):
    """Whatever happens: who is left alone is looked at within the longest pause."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(self.clock, 1.0)
        self.since = None

    @rule(state=st.sampled_from([SiloState.LATE, SiloState.UNREACHABLE, SiloState.ERROR]))
    def fail(self, state):
        self.breaker.failed(state)

    @rule()
    def answer(self):
        self.breaker.answered()

    @rule(seconds=st.floats(0.01, 5))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(state=st.sampled_from([SiloState.ANSWERED, SiloState.LATE, SiloState.UNREACHABLE]))
    def look(self, state):
        if self.breaker.wants_probe():
            self.since = None
            self.breaker.probed(state)

    @invariant()
    def is_looked_at_soon(self):
        if self.breaker.left_alone is None:
            return
        later = self.clock.now
        self.clock.now += LONGEST_PAUSE_S
        # asking takes the right to probe: so ask a copy of what it would say
        assert self.clock.now >= self.breaker._probe_at
        self.clock.now = later


TestLife = Life.TestCase
