"""What a silo's trainings have spent of its patients' privacy: written down before it is spent, and never taken back.

A charge is on disk before the first step of the round that it pays for. So a process that is killed at any moment has
spent at most what the ledger says: it may have paid for a round that never left, never the other way round. All jobs of a
silo add up, as they train on the same patients.
"""

import datetime as dt
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from silo_app.durable import PRIVATE, private_folder
from silo_app.errors import PrivacyRefused, StateError
from silo_app.privacy.accountant import Steps, epsilon_of

__all__ = ["Charge", "PrivacyLedger"]

_SCHEMA = """CREATE TABLE IF NOT EXISTS charges (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, job TEXT NOT NULL, round INTEGER NOT NULL,
    noise REAL NOT NULL, rate REAL NOT NULL, steps INTEGER NOT NULL, patients INTEGER NOT NULL)"""

_WAIT_S = 300.0
"""How long one job waits for another's charge, which composes the losses of all jobs before: seconds, more with many."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One round of one job, as it was paid for."""

    at: str
    """When, UTC."""
    job: str
    round: int
    spent: Steps
    patients: int
    """How many patients the silo trained on."""


class PrivacyLedger:
    """An SQLite file of the silo (`silo/privacy.db`), 0600."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, or begin it. Raises `StateError` for a file that is damaged: then nothing may be spent."""
        private_folder(path.parent)
        path.touch(mode=PRIVATE)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=_WAIT_S)
        if not self._begun():
            self._database.close()
            raise StateError(
                "the privacy ledger is damaged: what was spent is not known",
                where=str(path),
                remedy="Restore it from a backup that is newer than the last private training, or ask the privacy officer.",
            )

    def __enter__(self) -> Self:
        """Use the ledger in a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._database.close()

    def charges(self) -> list[Charge]:
        """Return everything that was paid for, oldest first."""
        rows = self._database.execute("SELECT at, job, round, noise, rate, steps, patients FROM charges ORDER BY id")
        return [
            Charge(at, job, number, Steps(noise, rate, steps), patients)
            for at, job, number, noise, rate, steps, patients in rows
        ]

    def spent(self, delta: float, jobs: Sequence[str] | None = None) -> float:
        """Return the epsilon of everything, or of some jobs, at `delta`."""
        return epsilon_of((one.spent for one in self.charges() if jobs is None or one.job in jobs), delta)

    def require(self, planned: Steps, *, rounds: int, allowed: float | None, delta: float) -> None:
        """Raise `PrivacyRefused` unless `rounds` more rounds of `planned` steps stay within `allowed`; None allows all."""
        if allowed is None:
            return
        before = [one.spent for one in self.charges()]
        total = epsilon_of([*before, Steps(planned.noise, planned.rate, planned.steps * rounds)], delta)
        if total <= allowed:
            return
        raise PrivacyRefused(
            f"{rounds} rounds would bring the epsilon spent from {epsilon_of(before, delta):.2f} to {total:.2f}; "
            f"{allowed:g} is allowed (delta {delta:g})",
            where="silo.yaml: training.privacy.epsilon_total",
            remedy="Submit the job with a smaller privacy.epsilon or fewer rounds; `silo privacy` shows what is left.",
        )

    def charge(self, job: str, number: int, planned: Steps, *, patients: int, allowed: float | None, delta: float) -> None:
        """Pay for round `number` before it is trained. Raises `PrivacyRefused`; then nothing was written.

        A round that is trained again is paid for again: its noise is new, and both may have left.
        """
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self.require(planned, rounds=1, allowed=allowed, delta=delta)
            row = (dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), job, number)
            self._database.execute(
                "INSERT INTO charges (at, job, round, noise, rate, steps, patients) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, planned.noise, planned.rate, planned.steps, patients),
            )
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _begun(self) -> bool:
        """Make the table if there is none; return whether the file is sound."""
        try:
            self._database.execute("PRAGMA synchronous=EXTRA")  # a charge that the power takes away was spent twice
            self._database.execute(_SCHEMA)
            return bool(self._database.execute("PRAGMA integrity_check").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False
