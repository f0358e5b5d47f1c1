"""Sums that silos do not take: outliers are refused by all alike, and a silo's own test makes it stand aside."""

import logging

import numpy as np
import pytest

from silo_app.errors import RoundRefused, UpdateRefused

ONE = "silo-01"


def same(federation, value):
    return dict.fromkeys(federation.sessions, np.full(federation.layout.size, np.float32(value)))


def test_a_sum_beyond_the_declared_norm_is_refused_from_the_first_round_on(make):
    federation = make(norm_limit=0.5).ready()
    closed = federation.sum(1, same(federation, 0.1))  # a norm of 0.1 * sqrt(142) = 1.19
    for session in federation.sessions.values():
        with pytest.raises(UpdateRefused, match=r"its norm is 1.19, an outlier: at most 0.5 is expected"):
            session.open_sum(1, *closed)
        session.void_round(1)
    assert np.allclose(federation.round(2, same(federation, 0.01))[ONE], 0.01, atol=1e-6)


def test_a_sum_far_beyond_all_before_is_refused_and_the_job_goes_on(make):
    """A large scale lasts (persistence), so that a norm can jump back up; here it must not."""
    federation = make(norm_growth=3.0, persistence=1.0).ready()
    federation.round(1, same(federation, 1e-3))
    closed = federation.sum(2, same(federation, 4e-3))
    before = federation.sessions[ONE]._progress.basis
    for session in federation.sessions.values():
        with pytest.raises(UpdateRefused, match="an outlier"):
            session.open_sum(2, *closed)
    assert federation.sessions[ONE]._progress.basis == before
    for session in federation.sessions.values():
        session.void_round(2)
    assert np.allclose(federation.round(3, same(federation, 2e-3))[ONE], 2e-3, rtol=1e-2)


def test_updates_may_grow_from_nothing(make):
    federation = make().ready()
    for number, value in enumerate((0.0, 0.0, 1e-6, 1e-5, 1e-4), start=1):
        federation.round(number, same(federation, value))


def test_a_silo_whose_acceptance_test_fails_stands_aside_until_a_sum_passes(make, caplog):
    federation = make((1, 1, 1, 1)).ready()
    federation.round(1, federation.updates(1))
    session = federation.sessions[ONE]
    with caplog.at_level(logging.WARNING):
        session.reject_sum(1, "AUC fell from 0.81 to 0.52")
    assert "acceptance test refused the sum: AUC fell from 0.81 to 0.52" in caplog.text
    assert session.rejected == "AUC fell from 0.81 to 0.52"
    federation.begin(2)
    with pytest.raises(RoundRefused, match=r"AUC fell from 0\.81 to 0\.52"):
        federation.encrypt(2, ONE, federation.updates()[ONE])
    updates = {name: update for name, update in federation.updates(2).items() if name != ONE}
    messages = {name: federation.encrypt(2, name, update) for name, update in updates.items()}
    message, names = federation.add(2, messages)
    reveals = federation.reveal(2, names)  # it still helps to open what others send, and follows
    for one in federation.sessions.values():
        one.open_sum(2, message, names, reveals)
    assert not session.rejected
    federation.round(3, federation.updates(3))


@pytest.mark.parametrize(("number", "reason"), [(0, "late"), (2, "early"), (1, "")])
def test_only_the_last_sum_can_be_rejected(make, number, reason):
    federation = make().ready()
    federation.round(1, federation.updates())
    with pytest.raises(RoundRefused, match="only the last opened sum can be rejected"):
        federation.sessions[ONE].reject_sum(number, reason)


def test_a_rejected_silo_still_gives_statistics_and_metrics(make):
    federation = make().ready()
    federation.round(1, federation.updates())
    federation.sessions[ONE].reject_sum(1, "worse")
    federation.statistics(2)
    assert federation.sessions[ONE].rejected == "worse"
