"""Whether a catalogue is whole: what `silo doctor` asks, slower and more thorough than the look at every opening."""

import sqlite3
from pathlib import Path

from silo_app.catalogue.schema import connect

__all__ = ["problems"]

_RULES = {
    "views that no file holds": "SELECT count(*) FROM views WHERE digest NOT IN "
    "(SELECT digest FROM files WHERE digest IS NOT NULL)",
    "series of another study than their views'": "SELECT count(*) FROM views v JOIN series s ON s.key = v.series_key "
    "WHERE s.case_id <> v.case_id",
    "patients without a known split": "SELECT count(*) FROM patients WHERE split NOT IN ('train', 'held-out')",
}


def problems(path: Path) -> tuple[str, ...]:
    """Return what is wrong with a catalogue, one sentence each, without identifiers; nothing if it is sound.

    Raises `NotReady` if there is none or it is being written, `CatalogueDamaged` if it cannot even be opened.
    """
    connection = connect(path, create=False)
    try:
        found = _damage(connection)
        rows = len(connection.execute("PRAGMA foreign_key_check").fetchall())
        if rows:
            found.append(f"{rows} rows refer to something that is not there")
        for what, query in _RULES.items():
            count = connection.execute(query).fetchone()[0]
            if count:
                found.append(f"{count} {what}")
    except sqlite3.DatabaseError as error:
        return (f"it cannot be read through ({type(error).__name__})",)
    finally:
        connection.close()
    return tuple(found)


def _damage(connection: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds damaged in pages and indexes; its words may quote table names, never values."""
    lines = [str(row[0]).splitlines()[0][:120] for row in connection.execute("PRAGMA integrity_check(20)")]
    return [] if lines == ["ok"] else [f"SQLite: {line}" for line in lines]
