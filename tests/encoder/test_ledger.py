"""The server's closed rounds survive its end, in order, and say when one is damaged."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from silo_app.encoder.ledger import KEEP_DAYS, STATISTICS, UPDATE, ClosedRound, Ledger
from silo_app.errors import ConfigInvalid, MessageInvalid, NotReady, RoundRefused

PLAN = {"rounds": 4}


def closed(number, job="job-1", *, void=False):
    if void:
        return ClosedRound(number=number, job=job)
    message = np.arange(300, dtype=np.uint8) + np.uint8(number)
    return ClosedRound(number=number, job=job, message=message, contributors=("a", "b"), reveals={"a": b"x", "b": b""})


def same(one, other):
    return (one.number, one.job, one.contributors, dict(one.reveals), one.void) == (
        other.number,
        other.job,
        other.contributors,
        dict(other.reveals),
        other.void,
    ) and (one.void or np.array_equal(one.message, other.message))


@pytest.mark.parametrize("void", [False, True])
def test_a_closed_round_travels_whole(void):
    one = closed(3, void=void)
    assert same(ClosedRound.unpacked(one.packed()), one)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"\0" + b[1:], lambda _: b"", lambda b: b + b"x"])
def test_a_damaged_round_is_refused(damage):
    with pytest.raises(MessageInvalid, match="cannot be read"):
        ClosedRound.unpacked(damage(closed(0).packed().tobytes()))


def test_rounds_are_closed_in_order_and_read_back_by_a_new_process(tmp_path):
    ledger = Ledger.begin(tmp_path / "rounds", "job-1", PLAN)
    assert ledger.next_round == 0
    for number in range(3):
        ledger.close(closed(number, void=number == 1))
    with pytest.raises(RoundRefused, match="at round 3"):
        ledger.close(closed(1))
    again = Ledger.resume(tmp_path / "rounds", "job-1", "job-2")
    assert again.next_round == 3
    assert again.sums() == 2
    assert again.plan == PLAN
    assert [one.number for one in again.since(1)] == [1, 2]
    assert same(again.read(2), closed(2))


def test_the_last_sum_of_a_content_is_found_among_others(tmp_path):
    ledger = Ledger.begin(tmp_path / "rounds", "job-1", PLAN)
    assert ledger.last(STATISTICS) is None
    for number, content in enumerate([STATISTICS, UPDATE, STATISTICS, UPDATE]):
        ledger.close(replace(closed(number), content=content))
    ledger.close(replace(closed(4, void=True), content=STATISTICS))
    assert (ledger.last(STATISTICS).number, ledger.last(UPDATE).number) == (2, 3)


def test_a_job_that_resumes_a_resumed_job_finds_the_same_ledger(tmp_path):
    Ledger.begin(tmp_path, "job-1", PLAN).close(closed(0))
    Ledger.resume(tmp_path, "job-1", "job-2").close(closed(1, "job-2"))
    third = Ledger.resume(tmp_path, "job-2", "job-3")
    assert third.jobs == ("job-1", "job-2", "job-3")
    assert [one.job for one in third.since(0)] == ["job-1", "job-2"]


def test_what_was_never_begun_or_is_finished_cannot_be_resumed(tmp_path):
    Ledger.begin(tmp_path, "job-1", PLAN).remove()
    with pytest.raises(NotReady, match="no closed rounds of job job-1"):
        Ledger.resume(tmp_path, "job-1", "job-2")
    with pytest.raises(ConfigInvalid, match="no job's id"):
        Ledger.resume(tmp_path, "../x", "job-2")


def test_a_sum_that_nobody_can_open_is_taken_back(tmp_path):
    ledger = Ledger.begin(tmp_path, "job-1", PLAN)
    for number in range(2):
        ledger.close(closed(number))
    ledger.void(1)
    ledger.void(1)
    assert ledger.read(1).void
    assert ledger.sums() == 1
    assert ledger.next_round == 2


def test_a_sum_that_silos_reject_is_undone_by_a_later_round_and_stays_for_who_has_not_opened_it(tmp_path):
    ledger = Ledger.begin(tmp_path, "job-1", PLAN)
    for number in range(3):
        ledger.close(closed(number))
    assert ledger.can_be_undone == 2
    ledger.close(ClosedRound(number=3, job="job-1", undoes=2))
    assert (ledger.sums(), ledger.can_be_undone, ledger.next_round) == (2, None, 4)
    assert ledger.last("update").number == 1
    assert not ledger.read(2).void
    assert (ledger.read(3).void, ledger.read(3).undoes) == (True, 2)
    ledger.close(closed(4))
    assert (ledger.sums(), ledger.can_be_undone) == (3, 4)


def test_a_damaged_file_is_named(tmp_path):
    ledger = Ledger.begin(tmp_path, "job-1", PLAN)
    ledger.close(closed(0))
    file = next(tmp_path.rglob("*.update"))
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(MessageInvalid):
        ledger.read(0)


def test_ledgers_that_nobody_resumed_are_dropped_in_the_end(tmp_path):
    Ledger.begin(tmp_path, "old", PLAN)
    past = time.time() - (KEEP_DAYS + 1) * 86_400
    for file in (tmp_path / "old").iterdir():
        os.utime(file, (past, past))
    Ledger.begin(tmp_path, "recent", PLAN)
    Ledger.begin(tmp_path, "new", PLAN)
    assert {folder.name for folder in tmp_path.iterdir()} == {"recent", "new"}
