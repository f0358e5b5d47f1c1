import stat
import subprocess
import sys

import pytest

from silo_app.policy.budget import DailyBudget, Share

NOON = 1_700_000_000.0
DAY = 86_400.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "private" / "budget.db"


def test_a_silo_may_ask_so_often_a_day(path):
    budget = DailyBudget(path)
    assert [budget.spend("private", "north", 2, now=NOON) for _ in range(3)] == [True, True, False]
    assert budget.spend("private", "south", 2, now=NOON)
    assert budget.spend("other", "north", 2, now=NOON)
    assert budget.spend("private", "north", 2, now=NOON + DAY)
    budget.close()


def test_a_restart_forgives_nothing(path):
    first = DailyBudget(path)
    assert first.spend("private", "north", 1, now=NOON)
    first.close()
    assert not DailyBudget(path).spend("private", "north", 1, now=NOON)


def test_no_budget_is_no_question(path):
    assert not DailyBudget(path).spend("private", "north", 0, now=NOON)


def test_only_the_silo_reads_the_counts(path):
    DailyBudget(path).spend("private", "north", 1, now=NOON)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_killed_process_has_counted_what_it_allowed(path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom silo_app.policy.budget import DailyBudget\n"
        f"assert DailyBudget(Path(sys.argv[1])).spend('private', 'north', 1, now={NOON})\nos.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert not DailyBudget(path).spend("private", "north", 1, now=NOON)


def test_a_question_may_cost_more_than_one_and_is_not_half_answered(path):
    budget = DailyBudget(path)
    share = Share("numbers", "north", 45, cost=20)
    assert [budget.spend_all([share], now=NOON) for _ in range(3)] == [None, None, share]
    single = Share("numbers", "north", 45)
    assert [budget.spend_all([single], now=NOON) for _ in range(6)] == [None] * 5 + [single]
    budget.close()
