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

_COUNTS = "INSERT INTO asked VALUES (?, ?, ?, ?) ON CONFLICT (day, kind, asker) DO UPDATE SET count = excluded.count"
# a clock that goes ahead and comes back finds what was counted on its day
_FORGOTTEN = """DELETE FROM asked WHERE day < (
    SELECT MIN(day) FROM (SELECT DISTINCT day FROM asked WHERE day < ? ORDER BY day DESC LIMIT ?)
)"""
_EARLIER_DAYS = 7
_MOST_KNOWN = 100_000
_Key = tuple[str, str]
"""Kind and asker."""


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
        self._known: dict[_Key, int] = {}
        """Today's counts, as they are in the file as long as nobody else has written into it."""
        self._counted: set[_Key] = set()
        self._version = -1
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
                self._write()  # what was counted yesterday in this very block
                self._database.execute(_FORGOTTEN, (day, _EARLIER_DAYS))
                self._day = day
                self._known.clear()
            counts: dict[_Key, int] = {}
            for share in shares:
                key = (share.kind, share.asker)
                counts[key] = counts.get(key, self._count(key)) + share.cost
                if counts[key] > share.limit:
                    return share
            self._known |= counts
            self._counted |= counts.keys()
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
            try:
                with self._database:
                    self._database.execute("BEGIN IMMEDIATE")
                    self._look()
                    self._together = True
                    try:
                        yield
                    finally:
                        self._together = False
                    self._write()
            except BaseException:
                self._forget()  # the file says what counts
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _count(self, key: _Key) -> int:
        """Return what was counted today."""
        if key not in self._known:
            found = self._database.execute(
                "SELECT count FROM asked WHERE day = ? AND kind = ? AND asker = ?", (self._day, *key)
            )
            self._known[key] = (found.fetchone() or (0,))[0]
        return self._known[key]

    def _look(self) -> None:
        """Forget what is known if another process has counted since, or if it is too much."""
        version = self._database.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._known) > _MOST_KNOWN:
            self._forget()
            self._version = version

    def _write(self) -> None:
        if not self._database.in_transaction:  # a full disk, for one, ends it
            raise sqlite3.OperationalError("what was counted is lost")
        if self._counted:
            rows = [(self._day, *key, self._known[key]) for key in self._counted]
            self._database.executemany(_COUNTS, rows)
            self._counted.clear()

    def _forget(self) -> None:
        self._known.clear()
        self._counted.clear()
        self._version = -1
