"""What an import could not use: images, with the reason, and local names that the shared vocabulary does not know."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from silo_app.durable import SHARED, write_text
from silo_app.imaging.samples.records import Skipped

SKIPPED, UNMAPPED = "skipped.csv", "unmapped.csv"


def write_leftovers(out: Path, skipped: Sequence[Skipped], unmapped: Mapping[str, int]) -> None:
    """Write both lists into the folder of the archives."""
    _write(out / SKIPPED, ("set", "file", "reason"), sorted((one.set, one.file, one.reason) for one in skipped))
    _write(out / UNMAPPED, ("name", "rows"), sorted(unmapped.items()))


def read_skipped(out: Path) -> list[Skipped]:
    """Return the images that an import into `out` could not use."""
    return [Skipped(**row) for row in _read(out / SKIPPED)]


def read_unmapped(out: Path) -> dict[str, int]:
    """Return the local names that meant nothing to an import into `out`, with the number of rows that had each."""
    return {row["name"]: int(row["rows"]) for row in _read(out / UNMAPPED)}


def _write(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(file, text.getvalue(), mode=SHARED)


def _read(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
