"""How many questions of one kind each silo has asked today: counted on disk, so that a restart forgives nothing."""

import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder

__all__ = ["DailyBudget", "Share"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS asked (day TEXT, kind TEXT, asker TEXT, count INTEGER, PRIMARY KEY (day, kind, asker))"

_COUNT = (
    "INSERT INTO asked VALUES (:day, :kind, :asker, :cost) "
    "ON CONFLICT (day, kind, asker) DO UPDATE SET count = count + :cost WHERE count + :cost <= :limit"
)
_TAKE_BACK = "UPDATE asked SET count = count - ? WHERE day = ? AND kind = ? AND asker = ?"


@dataclass(frozen=True, slots=True)
class Share:
    """One of the budgets that a question counts towards."""

    kind: str
    asker: str
    limit: int
    """So many a day."""
    cost: int = 1
    """As how many this question counts."""


class DailyBudget:
    """Counts in an SQLite file of the silo; safe from many threads, and from several processes.

    What is counted outlives the process, however it ends. With `outlives_power` it outlives a power cut too, which costs
    an fsync for each question; without, a cut may forgive those of the last moments.
    """

    def __init__(self, path: Path, *, outlives_power: bool = True) -> None:
        private_folder(path.parent)
        path.touch(mode=PRIVATE)
        self._lock = threading.RLock()
        self._together = False
        self._day = ""
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._database.execute("PRAGMA journal_mode=WAL")
        # a count that the power takes away was given twice
        self._database.execute(f"PRAGMA synchronous={'FULL' if outlives_power else 'NORMAL'}")
        self._database.execute(_SCHEMA)

    def spend(self, kind: str, asker: str, limit: int, *, now: float) -> bool:
        """Count one question of `asker` and return True, or return False if it has asked `limit` times today (UTC)."""
        return self.spend_all([Share(kind, asker, limit)], now=now) is None

    def spend_all(self, shares: Sequence[Share], *, now: float) -> Share | None:
        """Count one question towards every budget, or towards none and return the one that is spent."""
        day = dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat()
        with self.together():
            if day != self._day:
                self._database.execute("DELETE FROM asked WHERE day < ?", (day,))
                self._day = day
            for number, share in enumerate(shares):
                if not self._counted(day, share):
                    for counted in shares[:number]:
                        self._database.execute(_TAKE_BACK, (counted.cost, day, counted.kind, counted.asker))
                    return share
        return None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Count all that this thread counts within the block at its end, at the cost of one question.

        Others wait meanwhile. Raises `sqlite3.Error` there if nothing of it could be counted.
        """
        with self._lock:
            if self._together:
                yield
                return
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._together = True
                try:
                    yield
                    if not self._database.in_transaction:  # a full disk, for one, ends it
                        raise sqlite3.OperationalError("what was counted is lost")
                finally:
                    self._together = False

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _counted(self, day: str, share: Share) -> bool:
        """Count a question towards one budget, if that leaves room for it."""
        row = {"day": day, "kind": share.kind, "asker": share.asker, "cost": share.cost, "limit": share.limit}
        return share.cost <= share.limit and self._database.execute(_COUNT, row).rowcount == 1
