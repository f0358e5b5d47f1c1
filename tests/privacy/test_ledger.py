"""A charge is on disk before the round that it pays for; nothing that happens afterwards takes it back."""

import contextlib
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.errors import PrivacyRefused, StateError
from silo_app.privacy.accountant import Steps, epsilon_of
from silo_app.privacy.ledger import PrivacyLedger

PLANNED = Steps(noise=1.5, rate=0.1, steps=10)
FREE = {"patients": 100, "allowed": None, "delta": 1e-5}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "silo" / "privacy.db"


def test_what_was_paid_for_is_read_again(path):
    with PrivacyLedger(path) as ledger:
        ledger.charge("job-1", 0, PLANNED, **FREE)
        ledger.charge("job-1", 1, PLANNED, **FREE)
        ledger.charge("job-2", 0, Steps(2.0, 0.2, 5), **FREE)
    with PrivacyLedger(path) as ledger:
        assert [(one.job, one.round, one.spent) for one in ledger.charges()] == [
            ("job-1", 0, PLANNED),
            ("job-1", 1, PLANNED),
            ("job-2", 0, Steps(2.0, 0.2, 5)),
        ]
        assert ledger.spent(1e-5) == pytest.approx(epsilon_of([PLANNED, PLANNED, Steps(2.0, 0.2, 5)], 1e-5))
        assert ledger.spent(1e-5, ["job-2"]) == pytest.approx(epsilon_of([Steps(2.0, 0.2, 5)], 1e-5))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_job_that_would_overspend_is_refused_before_it_begins(path):
    whole = epsilon_of([Steps(PLANNED.noise, PLANNED.rate, 40)], 1e-5)
    with PrivacyLedger(path) as ledger:
        ledger.require(PLANNED, rounds=4, allowed=whole + 0.01, delta=1e-5)
        with pytest.raises(PrivacyRefused, match=r"5 rounds would bring the epsilon spent from 0\.00 to"):
            ledger.require(PLANNED, rounds=5, allowed=whole + 0.01, delta=1e-5)
        ledger.require(PLANNED, rounds=1000, allowed=None, delta=1e-5)


def test_no_round_is_paid_for_beyond_the_budget(path):
    two = epsilon_of([Steps(PLANNED.noise, PLANNED.rate, 20)], 1e-5)
    with PrivacyLedger(path) as ledger:
        for number in range(2):
            ledger.charge("job", number, PLANNED, patients=100, allowed=two + 0.01, delta=1e-5)
        with pytest.raises(PrivacyRefused):
            ledger.charge("job", 2, PLANNED, patients=100, allowed=two + 0.01, delta=1e-5)
        assert len(ledger.charges()) == 2


def test_two_jobs_at_once_cannot_spend_the_same_rest(path):
    one = epsilon_of([PLANNED], 1e-5)
    with PrivacyLedger(path) as first, PrivacyLedger(path) as second:
        first.charge("job-1", 0, PLANNED, patients=100, allowed=one + 0.01, delta=1e-5)
        with pytest.raises(PrivacyRefused):
            second.charge("job-2", 0, PLANNED, patients=100, allowed=one + 0.01, delta=1e-5)


def test_a_charge_waits_for_another_that_adds_up_a_long_history(path):
    """A dozen jobs took the accountant ten seconds, and a second private job at once ended with SQLite's error."""
    with PrivacyLedger(path) as ledger:
        assert ledger._database.execute("PRAGMA busy_timeout").fetchone()[0] >= 120_000


@pytest.mark.parametrize("content", [b"no database" * 100, None])
def test_a_damaged_ledger_stops_private_training(path, content):
    with PrivacyLedger(path) as ledger:
        for number in range(200):
            ledger.charge("job" * 20, number, PLANNED, **FREE)
    octets = path.read_bytes()
    path.write_bytes(content or octets[:4096] + bytes(2000) + octets[6096:])
    with pytest.raises(StateError, match="damaged"):
        PrivacyLedger(path)


TRAINS = """
import sys, pathlib
from silo_app.privacy.accountant import Steps
from silo_app.privacy.ledger import PrivacyLedger
out = open(sys.argv[2], "ab", buffering=0)
for number in range(10_000):
    with PrivacyLedger(pathlib.Path(sys.argv[1])) as ledger:
        ledger.charge("job", number, Steps(1.0, 0.1, 7), patients=9, allowed=None, delta=1e-5)
    out.write(b"x")  # the round is trained: its update may leave from here on
"""


def test_a_kill_at_any_moment_never_undercounts(path, tmp_path):
    """Real processes: twelve trainings, each killed while it pays for rounds and trains them."""
    trained, moments = tmp_path / "trained", random.Random(7)
    path.parent.mkdir()
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", TRAINS, str(path), str(trained)])
        grown = trained.stat().st_size if trained.exists() else 0
        end = time.monotonic() + 30
        while (trained.stat().st_size if trained.exists() else 0) <= grown and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with PrivacyLedger(path) as ledger:
        paid = len(ledger.charges())
    assert trained.stat().st_size >= 12
    assert trained.stat().st_size <= paid <= trained.stat().st_size + 12


class Killed(BaseException):
    """The process ends here: nothing after this line runs."""


class Dying:
    """A connection whose process is killed before or after the n-th statement."""

    def __init__(self, real, at, after):
        self._real, self._left, self._after = real, at, after

    def execute(self, *words):
        self._left -= 1
        if self._left == 0 and not self._after:
            raise Killed
        done = self._real.execute(*words)
        if self._left == 0:
            raise Killed
        return done

    def close(self):
        self._real.close()


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_whatever_statement_a_process_dies_at_trained_rounds_were_paid_for(tmp_path_factory, deaths):
    path = tmp_path_factory.mktemp("ledger") / "privacy.db"
    trained = 0
    for at, after in deaths:
        ledger = PrivacyLedger(path)
        real = ledger._database
        ledger._database = Dying(real, at, after)
        try:
            for number in range(3):
                ledger.charge("job", number, PLANNED, **FREE)
                trained += 1
        except Killed:
            pass
        real.close()  # what a kill does: an open transaction is gone
    with PrivacyLedger(path) as ledger:
        assert trained <= len(ledger.charges()) <= trained + len(deaths)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
