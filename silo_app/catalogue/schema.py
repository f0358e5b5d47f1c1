"""The catalogue's SQLite file: opening it, its tables, and their versions.

WAL, so that the index process and the web read while an ingest writes. `synchronous=NORMAL`: after a power cut the last
transactions may be gone, never half there, and the next ingest makes them again.
"""

import os
import sqlite3
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder
from silo_app.errors import CatalogueDamaged, NotReady, StateError

__all__ = ["connect"]

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE patients (
        key TEXT PRIMARY KEY,
        id_key TEXT NOT NULL,
        split TEXT NOT NULL
    ) STRICT;
    -- Rows of patients and studies stay when their images go: a study that comes back has its case id and its split.
    CREATE TABLE studies (
        case_id TEXT PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        uid_key TEXT NOT NULL,
        accession_key TEXT NOT NULL,
        patient TEXT NOT NULL REFERENCES patients (key)
    ) STRICT;
    CREATE INDEX studies_of_patient ON studies (patient);
    CREATE TABLE views (
        digest TEXT PRIMARY KEY,
        instance_key TEXT NOT NULL UNIQUE,
        case_id TEXT NOT NULL REFERENCES studies (case_id),
        position TEXT NOT NULL,
        sex TEXT NOT NULL,
        age INTEGER,
        study_year INTEGER,
        device TEXT NOT NULL,
        height INTEGER NOT NULL,
        width INTEGER NOT NULL,
        spacing_mm REAL
    ) STRICT;
    CREATE INDEX views_of_case ON views (case_id);
    CREATE TABLE labels (
        digest TEXT NOT NULL REFERENCES views (digest) ON DELETE CASCADE,
        finding TEXT NOT NULL,
        present INTEGER NOT NULL CHECK (present IN (0, 1)),
        source TEXT NOT NULL,
        term TEXT NOT NULL,
        PRIMARY KEY (digest, finding)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE files (
        source TEXT NOT NULL,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        recipe TEXT NOT NULL,
        digest TEXT REFERENCES views (digest),
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (source, path),
        CHECK ((digest IS NULL) = (reason <> ''))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_of_view ON files (digest);
    """,
)
"""One script for each version; appended to, never changed."""


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the catalogue, bringing it to this version.

    Raises `NotReady` if there is none (and `create` is false) or it is being written, `CatalogueDamaged` if it is not
    sound or of a newer version.
    """
    if not path.is_file():
        if not create:
            raise NotReady(
                "this silo has no catalogue yet", where=str(path), remedy="Run `silo ingest` to read the silo's images."
            )
        private_folder(path.parent)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, PRIVATE))  # SQLite gives -wal and -shm the same mode
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    except sqlite3.Error as error:
        raise _failed(path, error) from None
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _failed(path, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "trusted_schema = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise _damaged(path, finding)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise CatalogueDamaged(
            f"the catalogue has version {version}; this Siloscope knows {len(MIGRATIONS)}",
            where=str(path),
            remedy="Install the newer Siloscope that wrote it.",
        )
    if version < len(MIGRATIONS):
        _migrate(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing scripts, all or none; another process may have been faster."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit before it begins."""
    return [statement for statement in script.split(";") if statement.strip()]


def _failed(path: Path, error: sqlite3.Error) -> StateError:
    """Tell a catalogue that is busy from one that is damaged."""
    if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return NotReady("another process is writing the catalogue", where=str(path), remedy="Try again when it is done.")
    return _damaged(path, str(error))


def _damaged(path: Path, how: str) -> CatalogueDamaged:
    return CatalogueDamaged(
        f"the catalogue cannot be read ({how.splitlines()[0][:120]})",
        where=str(path),
        remedy="Restore it from a backup, or move it away and run `silo ingest`: images, labels and splits are read "
        "again, but studies get new case ids.",
    )
