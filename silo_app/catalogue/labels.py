"""Labels and their origins as rows of the catalogue."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin

__all__ = ["LABEL_COLUMNS", "LABEL_TABLES", "label_of", "read_labels", "write_labels"]

LABEL_COLUMNS = "l.finding, l.present, l.source, l.term, o.source, o.preset, o.digest, o.since"
LABEL_TABLES = "FROM labels l LEFT JOIN origins o ON o.id = l.origin"


def label_of(row: Sequence[Any]) -> Label:
    """Return the label of a row of `LABEL_COLUMNS`."""
    finding, present, source, term, file, preset, digest, since = row
    origin = None if file is None else Origin(source=file, preset=preset, digest=digest, since=since)
    return Label(finding=Finding(finding), present=bool(present), source=source, term=term, origin=origin)


def read_labels(connection: sqlite3.Connection) -> dict[str, tuple[Label, ...]]:
    """Return what is known about every labelled view, in the order of the findings' names."""
    known: dict[str, list[Label]] = {}
    made: dict[tuple[Any, ...], Label] = {}  # millions of rows say a few different things
    for digest, *row in connection.execute(f"SELECT l.digest, {LABEL_COLUMNS} {LABEL_TABLES} ORDER BY l.digest, l.finding"):
        content = tuple(row)
        if content not in made:
            made[content] = label_of(content)
        known.setdefault(digest, []).append(made[content])
    return {digest: tuple(found) for digest, found in known.items()}


def write_labels(connection: sqlite3.Connection, labels: Mapping[str, Sequence[Label]]) -> None:
    """Replace what is known about the findings of the named views."""
    origins = {label.origin for known in labels.values() for label in known}
    numbers = {origin: _number(connection, origin) for origin in origins}
    connection.executemany("DELETE FROM labels WHERE digest = ?", ((digest,) for digest in labels))
    connection.executemany(
        "INSERT INTO labels (digest, finding, present, source, term, origin) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (digest, label.finding, int(label.present), label.source, label.term, numbers[label.origin])
            for digest, known in labels.items()
            for label in known
        ),
    )


def _number(connection: sqlite3.Connection, origin: Origin | None) -> int | None:
    """Return the row of an origin; one that is known keeps the time of its first use."""
    if origin is None:
        return None
    named = (origin.source, origin.preset, origin.digest)
    connection.execute(
        "INSERT INTO origins (source, preset, digest, since) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*named, origin.since),
    )
    (number,) = connection.execute("SELECT id FROM origins WHERE source = ? AND preset = ? AND digest = ?", named).fetchone()
    return int(number)
