"""How many questions of one kind each silo has asked today: counted on disk, so that a restart forgives nothing."""

import datetime as dt
import sqlite3
import threading
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder

__all__ = ["DailyBudget"]

_SCHEMA = "CREATE TABLE IF NOT EXISTS asked (day TEXT, kind TEXT, asker TEXT, count INTEGER, PRIMARY KEY (day, kind, asker))"


class DailyBudget:
    """Counts in an SQLite file of the silo; safe from many threads, and from several processes."""

    def __init__(self, path: Path) -> None:
        private_folder(path.parent)
        path.touch(mode=PRIVATE)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")  # a count that the power takes away was given twice
        self._database.execute(_SCHEMA)

    def spend(self, kind: str, asker: str, limit: int, *, now: float) -> bool:
        """Count one question of `asker` and return True, or return False if it has asked `limit` times today (UTC)."""
        day = dt.datetime.fromtimestamp(now, dt.UTC).date().isoformat()
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM asked WHERE day < ?", (day,))
            row = self._database.execute(
                "SELECT count FROM asked WHERE day = ? AND kind = ? AND asker = ?", (day, kind, asker)
            ).fetchone()
            count = row[0] if row else 0
            if count >= limit:
                return False
            self._database.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?)", (day, kind, asker, count + 1))
        return True

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
