"""How many searches there is time for, by how long the last ones took."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.search.pace import Pace

SECONDS = st.floats(0.001, 100)


class Clock:
    """A counter of seconds that goes on by what is said to take time."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    return made


def take(pace, clock, count, each_s):
    with pace.of(count):
        clock.now += count * each_s


def test_while_nothing_is_known_one_is_tried():
    assert Pace().fitting(10.0, 64) == 1
    assert Pace().allows(0.001)
    assert not Pace().allows(0.0)


def test_quick_ones_are_made_at_once_and_slow_ones_one_by_one(clock):
    pace = Pace()
    take(pace, clock, 10, 0.001)
    assert pace.fitting(1.0, 64) == 64
    take(pace, clock, 1, 10.0)
    assert pace.fitting(1.0, 64) == 1
    assert not pace.allows(1.0)
    assert pace.allows(1.0, is_known=False)


def test_a_slow_moment_is_forgotten(clock):
    pace = Pace()
    take(pace, clock, 1, 10.0)
    for _ in range(30):
        take(pace, clock, 1, 0.01)
    assert pace.fitting(1.0, 64) > 20


def test_what_fails_says_nothing_of_the_pace(clock):
    pace = Pace()
    with pytest.raises(OSError, match="gone"), pace.of(1):
        clock.now += 100
        raise OSError("gone")
    assert pace.allows(0.001)


@settings(max_examples=200, deadline=None)
@given(each=SECONDS, left=SECONDS, count=st.integers(1, 64))
def test_at_a_steady_pace_all_ends_in_time_and_little_time_is_left_unused(each, left, count):
    with pytest.MonkeyPatch.context() as patch:
        clock, pace, done = Clock(), Pace(), 0
        patch.setattr(time, "perf_counter", clock)
        take(pace, clock, 1, each)
        end = clock.now + left
        while done < count and pace.allows(end - clock.now):
            many = pace.fitting(end - clock.now, count - done)
            take(pace, clock, many, each)
            done += many
    assert clock.now <= end
    assert done == count or end - clock.now <= each / 0.8 + 1e-6
