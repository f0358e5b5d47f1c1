"""How many questions of one kind each silo has asked today: counted on disk, so that a restart forgives nothing."""

import datetime as dt
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder

__all__ = ["DailyBudget", "Share"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS asked (day TEXT, kind TEXT, asker TEXT, count INTEGER, PRIMARY KEY (day, kind, asker))"


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
        self._lock = threading.Lock()
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
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if day != self._day:
                self._database.execute("DELETE FROM asked WHERE day < ?", (day,))
                self._day = day
            counts = [self._count(day, share) for share in shares]
            for share, count in zip(shares, counts, strict=True):
                if count + share.cost > share.limit:
                    return share
            for share, count in zip(shares, counts, strict=True):
                self._database.execute(
                    "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", (day, share.kind, share.asker, count + share.cost)
                )
        return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _count(self, day: str, share: Share) -> int:
        row = self._database.execute(
            "SELECT count FROM asked WHERE day = ? AND kind = ? AND asker = ?", (day, share.kind, share.asker)
        ).fetchone()
        return row[0] if row else 0
