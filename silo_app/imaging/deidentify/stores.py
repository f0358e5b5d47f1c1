"""What a silo keeps, column by column: the other half of a privacy officer's question."""

import re
import sqlite3
import stat
from dataclasses import dataclass
from pathlib import Path

from silo_app.catalogue.schema import connect
from silo_app.config import SiloHome

__all__ = ["Column", "Store", "columns", "stores"]

_MEANINGS = {
    "crosswalk.sealed": "study UID, accession, Patient ID: AES-256-GCM, opened by `silo catalogue whois` only",
    "files.source": "where a file is: AES-SIV",
    "files.path": "a file's name: AES-SIV",
    "files.mtime_ns": "a file's time: HMAC-SHA256",
    "files.size": "bytes of a file",
    "files.digest": "a file's bytes: keyed (GMAC, HMAC-SHA256)",
    "views.digest": "a file's bytes: keyed (GMAC, HMAC-SHA256)",
    "views.age": "years, 90 for more",
    "views.study_year": "year of the study",
    "views.device": "manufacturer and model, without numbers of five digits or more",
    "recalled_names.name": "name by the silo's key (HMAC-SHA256)",
    "studies.case_id": "random, 128 bits: the only name of a study that leaves",
}
_KEYED = re.compile(r"(^|_)key$|^patient$")
_SHAPES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the catalogue."""

    name: str
    rows: int
    meaning: str
    shapes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One file or folder of the silo's home."""

    name: str
    files: int
    bytes: int
    open_to_others: int
    """Files that other accounts may read; must be 0."""


def columns(path: Path) -> list[Column]:
    """Return every column of a catalogue with the shapes of some of its values; no value."""
    connection = connect(path, create=False)
    try:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        ]
        return [
            _column(connection, table, row[1])
            for table in tables
            for row in connection.execute(f"PRAGMA table_info({table})").fetchall()  # our own tables' names
        ]
    finally:
        connection.close()


def _column(connection: sqlite3.Connection, table: str, name: str) -> Column:
    query = f"SELECT count({name}) FROM {table}"  # noqa: S608  (names from the schema)
    (rows,) = connection.execute(query).fetchone()
    query = f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT 200"  # noqa: S608  (as above)
    shapes = sorted({_shape(value) for (value,) in connection.execute(query)})[:_SHAPES]
    full = f"{table}.{name}"
    keyed = "name by the silo's key (HMAC-SHA256)" if _KEYED.search(name) and table != "meta" else ""
    return Column(name=full, rows=rows, meaning=_MEANINGS.get(full, keyed), shapes=tuple(shapes))


def _shape(value: object) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if not isinstance(value, str):
        return "number"
    if re.fullmatch(r"[0-9a-f]{32,}", value):
        return f"{len(value)} hex digits"
    if value.startswith("sealed:"):
        return "sealed"
    letters = re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", re.sub(r"\d", "9", value[:32]))
    return letters or "(empty)"


def stores(home: SiloHome) -> list[Store]:
    """Return what lies in the silo's home, by its first level, with whether others may read it."""
    found = []
    for entry in sorted(home.root.iterdir()):
        files = [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
        states = [file.stat() for file in files]
        others = sum(bool(state.st_mode & (stat.S_IRWXG | stat.S_IRWXO)) for state in states)
        found.append(
            Store(name=entry.name, files=len(files), bytes=sum(state.st_size for state in states), open_to_others=others)
        )
    return found
