"""Look through every file that the server keeps for what it must never have: weights, keys, embeddings, identifiers.

This can be done only where all hospitals lie on one machine (demo, tests): it needs to know their secrets to look for them.
"""

import csv
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provisioning.federation import Federation

__all__ = ["look", "needles"]

_WINDOW = 24
"""Bytes of a weight vector to look for: six float32 in a row do not occur by chance."""
_OWN_KEY = "server.key"


def look(federation: Federation) -> dict[str, Any]:
    """Return how much was searched for how many needles, and every leak as "file: kind"."""
    wanted = list(needles(federation))
    files, size, leaks = 0, 0, []
    root = federation.kit(federation.server)
    for file in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        content = file.read_bytes()
        files, size = files + 1, size + len(content)
        leaks += [f"{file.relative_to(root)}: {kind}" for kind, needle in wanted if needle in content]
        if b"PRIVATE KEY-----" in content and file.name != _OWN_KEY:
            leaks.append(f"{file.relative_to(root)}: a private key")
    return {"files": files, "bytes": size, "needles": len(wanted), "leaks": sorted(set(leaks))}


def needles(federation: Federation) -> Iterator[tuple[str, bytes]]:
    """Yield what must not be found, with its kind."""
    for silo in federation.silos:
        kit = federation.kit(silo)
        yield from _weights(kit / "silo" / "models")
        yield from _keys(kit)
        yield from _embeddings(kit / "silo" / "index")
        yield from _identifiers(kit)


def _weights(models: Path) -> Iterator[tuple[str, bytes]]:
    for file in models.glob("*/encoder.safetensors"):
        content = file.read_bytes()
        for start in range(len(content) // 10 // 4 * 4, len(content) - _WINDOW, max(4, len(content) // 8 // 4 * 4)):
            window = content[start : start + _WINDOW]
            if len(set(window)) > 8:
                yield "plaintext weights", window


def _keys(kit: Path) -> Iterator[tuple[str, bytes]]:
    for file in (kit / "silo" / "silo.key", kit / "startup" / "client.key"):
        if file.is_file():
            content = file.read_bytes()
            yield "a silo's key", content[40:80] if len(content) > 80 else content


def _embeddings(index: Path) -> Iterator[tuple[str, bytes]]:
    for file in index.glob("*/*"):
        if file.is_file() and file.stat().st_size > 4096:
            content = file.read_bytes()
            middle = len(content) // 2
            yield "an embedding", content[middle : middle + _WINDOW]


def _identifiers(kit: Path) -> Iterator[tuple[str, bytes]]:
    """Patients' names, ids and UIDs of the hospital's own files, and the paths of the files."""
    from silo_app import config
    from silo_app.config import CsvLabels

    home = config.load(kit)
    labels = home.config.labels
    if isinstance(labels, CsvLabels):
        with home.resolve(labels.path).open(encoding="utf-8", newline="") as file:
            for row in list(csv.DictReader(file))[:200]:
                yield "an identifier", row[labels.key_column].encode()
    if home.catalogue.is_file():
        with sqlite3.connect(f"file:{home.catalogue}?mode=ro", uri=True) as database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            if "patients" in tables:
                columns = [row[1] for row in database.execute("pragma table_info(patients)")]
                for column in columns:
                    for (value,) in database.execute(f"select {column} from patients limit 100"):  # noqa: S608  (names of our schema)
                        if isinstance(value, str) and len(value) >= 16:
                            yield "a patient's pseudonym", value.encode()
