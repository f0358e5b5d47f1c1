"""One record an image: what a set's CSV says of it, in the shared vocabulary."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from silo_app.cases import Finding, Sex, ViewPosition
from silo_app.errors import LabelsInvalid, SampleInvalid
from silo_app.imaging.samples.columns import Columns, check, columns_for, shared
from silo_app.imaging.samples.image_set import IMAGES, ImageSet, Opened, read_csv


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image and what is known about it."""

    set: int = 0  # which of the sets
    file: str = ""  # its name in the set
    patient: str = ""  # as the set calls the patient
    findings: tuple[Finding, ...] | None = None  # None: nothing that the shared vocabulary knows
    age: int | None = None
    sex: Sex = Sex.UNKNOWN
    position: ViewPosition = ViewPosition.UNKNOWN
    order: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that was not imported, and why."""

    set: str
    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All records of one set, what had to be skipped, and which local names mean nothing in the shared vocabulary."""

    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...]
    unmapped: dict[str, int]
    scope: tuple[Finding, ...]


def read_records(one: ImageSet, number: int, content: Opened) -> Listing:
    """Read the CSV of a set. Raises `LabelsInvalid` naming file, missing column, columns found and remedy."""
    name, text = read_csv(one, content, lambda line: _accepts(line, one.columns))
    rows, header = _rows(text, f"{one.path}:{name}")
    columns = columns_for(header, one.columns)
    check(columns, header, f"{one.path}:{name}")
    find, taken = _Finder(content), set[str]()
    records, skipped, unmapped = [], [], Counter[str]()
    for row in rows:
        given, patient = (row[columns.file] or "").strip(), (row[columns.patient] or "").strip()
        file = find(given)
        if file is None or file in taken or not patient:
            skipped.append(Skipped(one.name, given, _why(file, taken)))
            continue
        taken.add(file)
        findings, unknown = _findings(row[columns.findings] or "", columns)
        unmapped.update(unknown)
        records.append(replace(_about(row, columns), set=number, file=file, patient=patient, findings=findings))
    if not records:
        raise SampleInvalid(
            f"none of the {len(rows)} rows of {name} names an image in the set",
            where=str(one.path),
            remedy="Check --file-column: it must hold the images' names.",
        )
    return Listing(tuple(records), tuple(skipped), dict(unmapped), columns.scope or _occurring(records))


def _why(file: str | None, taken: set[str]) -> str:
    if file is None:
        return "no such image in the set"
    return "named twice" if file in taken else "no patient"


def _accepts(line: str, given: Mapping[str, Any]) -> bool:
    header = next(csv.reader([line]), [])
    return set(columns_for(header, given).required()) <= set(header)


def _rows(text: str, where: str) -> tuple[list[dict[str, str | None]], Sequence[str]]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        return list(reader), reader.fieldnames or ()
    except csv.Error as error:
        raise LabelsInvalid(
            f"this is not a CSV: {error}", where=where, remedy="Save the labels as comma-separated text with a header."
        ) from None


class _Finder:
    """Finds an image by what the CSV calls it: its whole name in the set, or the end of it if only one ends so."""

    def __init__(self, content: Opened) -> None:
        self.whole = {name for name in content.sizes if PurePosixPath(name).suffix.lower() in IMAGES}
        self.last: dict[str, list[str]] = defaultdict(list)
        for name in self.whole:
            self.last[PurePosixPath(name).name].append(name)

    def __call__(self, given: str) -> str | None:
        if given in self.whole:
            return given
        path = PurePosixPath(given.replace("\\", "/"))
        ends = [name for name in self.last.get(path.name, ()) if f"/{name}".endswith(f"/{path}")]
        return ends[0] if len(ends) == 1 else None


def _findings(cell: str, columns: Columns) -> tuple[tuple[Finding, ...] | None, list[str]]:
    """Return the shared findings of a cell (None if it says nothing that is shared), and the names without one."""
    names = [name.strip() for name in cell.split(columns.separator) if name.strip()]
    found = {name: shared(name, columns.mapping) for name in names}
    known = {one for one in found.values() if one is not None}
    unknown = [name for name, one in found.items() if one is None]
    if len(known) > 1:
        known.discard(Finding.NO_FINDING)
    return (tuple(sorted(known)) or None), unknown


def _about(row: Mapping[str, str | None], columns: Columns) -> Record:
    """Return what a row says of its image beside name, patient and findings."""

    def cell(column: str) -> str:
        return (row.get(column) or "").strip() if column else ""

    return Record(
        age=_age(cell(columns.age)),
        sex=_SEXES.get(cell(columns.sex)[:1].upper(), Sex.UNKNOWN),
        position=_VIEWS.get(cell(columns.view).upper(), columns.position),
        order=int(order) if (order := cell(columns.order)).isdecimal() else 0,
    )


def _age(text: str) -> int | None:
    """Return an age in years of "36", "036Y" or "36.0"; None for anything else, or nobody's age."""
    digits = text.upper().removesuffix("Y").split(".", maxsplit=1)[0]
    return int(digits) if digits.isdecimal() and int(digits) <= 120 else None


def _occurring(records: Sequence[Record]) -> tuple[Finding, ...]:
    named = {one for record in records for one in record.findings or ()}
    return tuple(sorted(named - {Finding.NO_FINDING}))


_SEXES = {"F": Sex.FEMALE, "M": Sex.MALE, "O": Sex.OTHER, "W": Sex.FEMALE}
_VIEWS = {
    "PA": ViewPosition.PA,
    "AP": ViewPosition.AP,
    "LATERAL": ViewPosition.LATERAL,
    "LL": ViewPosition.LATERAL,
    "L": ViewPosition.LATERAL,
}
