"""A job that was killed goes on in another one: new keys, the same history, and what was missed is caught up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import wire
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.progress import State
from silo_app.errors import CheckpointInvalid, KeyRefused, UpdateRefused

ONE, TWO = "silo-01", "silo-02"
COUNTS = (10, 20, 30)


def states(federation):
    return {name: session.export_state() for name, session in federation.sessions.items()}


def resumed(make, kept, job="job-2", **changes):
    return make(COUNTS, job=job, states=kept, **changes)


@pytest.fixture
def stopped(make):
    """Return a federation after statistics and two rounds, at 12 bits."""
    federation = make(COUNTS, bits=12).ready()
    for number in (1, 2):
        federation.round(number, federation.updates(number))
    return federation


def test_a_resumed_job_equals_one_that_was_never_stopped(make, stopped):
    again = resumed(make, states(stopped), bits=12).exchange()
    ids = {one.sessions[ONE]._exchange.cipher.key_id for one in (again, stopped)}
    assert len(ids) == 2
    assert again.sessions[ONE].next_round == 3
    for name, session in again.sessions.items():
        session._random = np.random.default_rng(int(name[-1]))
        stopped.sessions[name]._random = np.random.default_rng(int(name[-1]))
    updates = stopped.updates(3)
    expected, opened = stopped.round(3, updates), again.round(3, updates)
    for name in opened:
        np.testing.assert_array_equal(opened[name], expected[name])
    mine, theirs = again.sessions[ONE]._progress, stopped.sessions[ONE]._progress
    np.testing.assert_array_equal(mine.residual, theirs.residual)
    np.testing.assert_array_equal(mine.scales, theirs.scales)
    assert (mine.total, mine.norm, mine.counted) == (theirs.total, theirs.norm, theirs.counted)


def test_silos_that_had_not_opened_the_last_sum_catch_up_under_the_old_key(make, stopped):
    closed, bundles = stopped.sum(3, stopped.updates(3)), stopped.bundles[3]
    stopped.sessions["silo-00"].open_sum(3, *closed)
    residual = stopped.sessions[ONE]._progress.sent.residual
    again = resumed(make, states(stopped), bits=12).exchange()
    assert [session.next_round for session in again.sessions.values()] == [4, 3, 3]
    for name in (ONE, TWO):
        again.sessions[name].open_sum(3, *closed, bundles)
    np.testing.assert_array_equal(again.sessions[ONE]._progress.residual, residual)
    updates = again.updates(4)
    np.testing.assert_allclose(again.round(4, updates)[ONE], again.mean(updates), atol=2e-4)


def test_a_job_resumed_by_fewer_silos_opens_the_old_sums_alike(make):
    """A field's steps depend on how many silos share it: for an old sum, those of the old job."""
    federation = make((*COUNTS, 40), bits=10).ready()
    federation.round(1, federation.updates(1))
    closed, bundles = federation.sum(2, federation.updates(2)), federation.bundles[2]
    expected = federation.sessions["silo-00"].open_sum(2, *closed).update
    kept = {name: state for name, state in states(federation).items() if name != "silo-03"}
    again = resumed(make, kept, bits=10).exchange()
    np.testing.assert_array_equal(again.sessions[ONE].open_sum(2, *closed, bundles).update, expected)
    again.sessions[TWO].open_sum(2, *closed, bundles)
    updates = again.updates(3)
    np.testing.assert_allclose(again.round(3, updates)[ONE], again.mean(updates), atol=1e-3)


def test_a_round_that_was_open_is_done_anew(make, stopped):
    stopped.begin(3)
    lost = stopped.encrypt(3, ONE, stopped.updates(3)[ONE])
    again = resumed(make, states(stopped), bits=12).exchange()
    updates = again.updates(4)
    opened = again.round(3, updates)[ONE]
    np.testing.assert_allclose(opened, again.mean(updates), atol=2e-4)
    assert wire.split(lost)[0].job != again.job


def test_a_job_can_be_resumed_twice(make, stopped):
    closed, bundles = stopped.sum(3, stopped.updates(3)), stopped.bundles[3]
    for name in ("silo-00", TWO):
        stopped.sessions[name].open_sum(3, *closed)
    second = resumed(make, states(stopped), bits=12).exchange()
    third = resumed(make, states(second), job="job-3", bits=12).exchange()
    third.sessions[ONE].open_sum(3, *closed, bundles)
    third.round(4, third.updates(4))


def test_sums_of_a_foreign_job_stay_refused(make, stopped):
    stranger = make(COUNTS, job="job-9", bits=12).exchange()
    for number in range(3):
        for session in stranger.sessions.values():
            session.void_round(number)
    foreign = stranger.sum(3, stranger.updates(3))
    again = resumed(make, states(stopped), bits=12).exchange()
    with pytest.raises(KeyRefused, match="under another key"):
        again.sessions[ONE].open_sum(3, *foreign, stranger.bundles[3])


def test_a_silo_without_the_jobs_state_may_not_resume_it(make, stopped):
    again = resumed(make, {**states(stopped), TWO: None}, bits=12)
    with pytest.raises(UpdateRefused, match="silo-02: its rounds began in job job-2, this silo's in job job-1"):
        again.exchange()


def test_silos_of_two_histories_do_not_resume_together(make, stopped):
    other = make(COUNTS, bits=12).ready()
    for number in (1, 2):
        other.round(number, other.updates(number + 7))
    kept = {**states(stopped), TWO: other.sessions[TWO].export_state()}
    with pytest.raises(UpdateRefused, match="silo-02: its rounds before round 3 are not those of silo-00"):
        resumed(make, kept, bits=12).exchange()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"bits": 16}, "other settings"), ({"bits": 12, "layout": Layout(("w",), ((142,),))}, "has 3 values")],
)
def test_a_state_of_another_encoder_or_other_settings_is_refused(make, stopped, changes, problem):
    with pytest.raises(CheckpointInvalid, match=problem):
        resumed(make, states(stopped), **changes)


def test_another_silos_state_is_refused(make, stopped):
    kept = states(stopped)
    with pytest.raises(CheckpointInvalid, match="it is of silo silo-02"):
        resumed(make, {**kept, ONE: kept[TWO]}, bits=12)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_state_is_refused_and_never_crashes(kept_state, data):
    where = data.draw(st.integers(0, 40) | st.integers(0, len(kept_state) - 1))
    damaged = bytearray(kept_state[:where] if data.draw(st.booleans()) else kept_state)
    if len(damaged) == len(kept_state):
        damaged[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointInvalid):
        State.read(bytes(damaged), tensors=3, size=142)


@pytest.fixture(scope="module")
def kept_state(make):
    federation = make(COUNTS).ready()
    federation.round(1, federation.updates())
    federation.begin(2)
    federation.encrypt(2, ONE, federation.updates()[ONE])
    return federation.sessions[ONE].export_state()


def test_a_state_is_read_as_it_was_written(kept_state):
    state = State.read(kept_state, tensors=3, size=142)
    assert state.packed() == kept_state
    assert state.progress.sent.participants == ("silo-00", ONE, TWO)
    assert state.earlier[0].job == "job-1"
    assert state.earlier[0].secret.hex() not in repr(state)
