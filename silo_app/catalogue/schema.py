"""The catalogue's SQLite file: opening it, checking it, bringing it to this version (`migrations`).

WAL, so that the index process and the web read while an ingest writes. `synchronous=NORMAL`: after a power cut the last
transactions may be gone, never half there, and the next ingest makes them again.
"""

import os
import sqlite3
from pathlib import Path

from silo_app.catalogue.migrations import LATEST, MIGRATIONS
from silo_app.durable import PRIVATE, private_folder
from silo_app.errors import CatalogueDamaged, NotReady, StateError

__all__ = ["ANEW", "connect", "failed", "roll_back"]

ANEW = (
    "Restore it from a backup, or move it away and run `silo ingest`: images, labels and splits are read again, but studies "
    "get new case ids, and what was taken out since is in again, until you take it out (`case-recalled` in the audit log)."
)
"""What to do about a damaged one."""

_OF_THE_MACHINE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
}
"""What whoever runs the machine can mend, as `cli.edge` tells of files."""

_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "secure_delete = ON",  # what is forgotten does not stay in the file's free pages
)


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
        raise failed(path, error) or _damaged(path, str(error)) from None
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise failed(path, error) or _damaged(path, str(error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise _damaged(path, finding)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > LATEST:
        raise CatalogueDamaged(
            f"the catalogue has version {version}; this Siloscope knows {LATEST}",
            where=str(path),
            remedy="Install the newer Siloscope that wrote it.",
        )
    if version < LATEST:
        _migrate(connection)


def _migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing scripts, all or none; another process may have been faster."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for migration in MIGRATIONS[version:]:
            for statement in _statements(migration.script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {LATEST}")
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """Take back a transaction, unless SQLite has done so itself (https://sqlite.org/lang_transaction.html, section 3)."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _statements(script: str) -> list[str]:
    """Split a script; `executescript` would commit before it begins."""
    return [statement for statement in script.split(";") if statement.strip()]


def failed(path: Path, error: sqlite3.Error) -> StateError | None:
    """Return what is told of an error of SQLite: a catalogue that is busy or has no room is not damaged; None for others."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return NotReady("another process is writing the catalogue", where=str(path), remedy="Try again when it is done.")
    if code in _OF_THE_MACHINE:
        return NotReady(
            f"the catalogue cannot be read or written here, and is not damaged by that ({error})",
            where=str(path),
            remedy="Make room on the disk of the silo's folder, let the account that runs Siloscope write there, and try "
            "again: an ingest goes on from here.",
        )
    return _damaged(path, str(error)) if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB} else None


def _damaged(path: Path, how: str) -> CatalogueDamaged:
    return CatalogueDamaged(
        f"the catalogue cannot be read ({how.splitlines()[0][:120]})",
        where=str(path),
        remedy=ANEW,
    )
