import contextlib
import sqlite3
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.policy.budget import DailyBudget, Share

NOON = 1_700_000_000.0
DAY = 86_400.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "private" / "budget.db"


def spent_anew(path, limit):
    """Count one question in a process that has just been started."""
    with contextlib.closing(DailyBudget(path)) as budget:
        return budget.spend("private", "north", limit, now=NOON)


def test_a_silo_may_ask_so_often_a_day(path):
    budget = DailyBudget(path)
    assert [budget.spend("private", "north", 2, now=NOON) for _ in range(3)] == [True, True, False]
    assert budget.spend("private", "south", 2, now=NOON)
    assert budget.spend("other", "north", 2, now=NOON)
    assert budget.spend("private", "north", 2, now=NOON + DAY)
    budget.close()


@pytest.mark.parametrize("days", [(1,), (400,), (1, 2, 3), (-1,), (-400, 400)])
def test_a_clock_that_jumps_and_comes_back_forgives_nothing(path, days):
    budget = DailyBudget(path)
    assert budget.spend("private", "north", 1, now=NOON)
    for day in days:
        assert budget.spend("private", "south", 1, now=NOON + day * DAY)
    assert not budget.spend("private", "north", 1, now=NOON)
    budget.close()


def test_old_days_are_not_kept_for_good(path):
    budget = DailyBudget(path)
    for day in range(0, 60, 2):
        assert budget.spend("private", "north", 1, now=NOON + day * DAY)
    budget.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        (kept,) = database.execute("SELECT COUNT(DISTINCT day) FROM asked").fetchone()
    assert kept == 8


def test_a_restart_forgives_nothing(path):
    first = DailyBudget(path)
    assert first.spend("private", "north", 1, now=NOON)
    first.close()
    assert not spent_anew(path, 1)


def test_no_budget_is_no_question(path):
    assert not spent_anew(path, 0)


def test_only_the_silo_reads_the_counts(path):
    spent_anew(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_killed_process_has_counted_what_it_allowed(path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom silo_app.policy.budget import DailyBudget, Share\n"
        f"assert DailyBudget(Path(sys.argv[1])).spend('private', 'north', 1, now={NOON})\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert not spent_anew(path, 1)


def test_a_spent_budget_is_named_and_takes_nothing_from_the_others(path):
    budget = DailyBudget(path)
    silo, user = Share("silo", "north", 3), Share("user", "anna", 1)
    assert [budget.spend_all([silo, user], now=NOON) for _ in range(3)] == [None, user, user]
    assert [budget.spend_all([silo], now=NOON) for _ in range(3)] == [None, None, silo]
    budget.close()


def test_what_is_counted_together_is_counted_one_by_one(path):
    budget = DailyBudget(path)
    with budget.together():
        assert [budget.spend("private", "north", 2, now=NOON) for _ in range(3)] == [True, True, False]
    budget.close()
    assert not spent_anew(path, 2)


def test_what_could_not_be_counted_together_is_not_counted(path):
    budget = DailyBudget(path)
    with pytest.raises(RuntimeError), budget.together():
        budget.spend("private", "north", 1, now=NOON)
        raise RuntimeError
    assert budget.spend("private", "north", 1, now=NOON)
    budget.close()


def test_a_question_may_cost_more_than_one_and_is_not_half_answered(path):
    budget = DailyBudget(path)
    share = Share("numbers", "north", 45, cost=20)
    assert [budget.spend_all([share], now=NOON) for _ in range(3)] == [None, None, share]
    single = Share("numbers", "north", 45)
    assert [budget.spend_all([single], now=NOON) for _ in range(6)] == [None] * 5 + [single]
    budget.close()


QUESTIONS = st.lists(
    st.tuples(st.sampled_from(["silo", "user"]), st.sampled_from(["north", "anna"]), st.integers(1, 3)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.booleans(), st.booleans(), st.lists(QUESTIONS, max_size=4), st.integers(0, 2)), max_size=8)
)
def test_two_who_count_in_one_file_count_as_one(tmp_path_factory, blocks):
    """In blocks, of which some fail and count nothing, over several days."""
    path = tmp_path_factory.mktemp("budget") / "budget.db"
    both, counts, today = (DailyBudget(path), DailyBudget(path)), {}, 0
    for second, fails, questions, days in blocks:
        today += days
        before, counts = counts, ({} if days else dict(counts))
        with contextlib.suppress(ZeroDivisionError), both[second].together():
            for question in questions:
                shares = [Share(kind, asker, 6, cost) for kind, asker, cost in question]
                wanted, spent = dict(counts), None
                for share in shares:
                    key = (share.kind, share.asker)
                    wanted[key] = wanted.get(key, 0) + share.cost
                    spent = spent or (share if wanted[key] > share.limit else None)
                assert both[second].spend_all(shares, now=NOON + today * DAY) == spent
                counts = counts if spent else wanted
            1 / (not fails)
        if fails:
            counts = {} if days else before
    for budget in both:
        budget.close()
