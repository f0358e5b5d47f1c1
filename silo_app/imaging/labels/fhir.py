"""FHIR DiagnosticReports (R4 and R5) as ndjson -> labels: `conclusionCode`, matched by study UID or accession number.

Reports are read as data, never as language: a conclusion's text counts only if all of it is one known term.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin
from silo_app.config import FhirLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels.codes import CodeBook
from silo_app.imaging.labels.csv_file import MAX_ISSUES
from silo_app.imaging.labels.statement import Statement, labels_of
from silo_app.imaging.labels.table import Issue, Key, LabelTable
from silo_app.imaging.labels.vocabulary import Terms
from silo_app.settings.labels import Said

__all__ = ["read_fhir"]

_VALID = {"final", "amended", "corrected", "appended", "modified"}
"""Statuses of a report that counts; a preliminary one may still change, a cancelled one says nothing."""
_UID = "urn:oid:"
_TERM = 64

Resource = Mapping[str, Any]


def read_fhir(settings: FhirLabels, path: Path, content: bytes, origin: Origin) -> LabelTable:
    """Read an export; of several reports of one study the one issued last counts."""
    book = CodeBook(settings.codes, Terms(settings.mapping))
    issues: list[Issue] = []
    latest: dict[Key, tuple[datetime, int, tuple[Label, ...]]] = {}
    rows = 0
    for line, report in _reports(path, content, issues):
        rows += 1
        keys = list(dict.fromkeys(_keys(report)))
        problem = _unusable(report, keys)
        statement = Statement(silent=True) if problem else _statement(report, book)
        if problem or statement.silent:
            _odd(issues, line, problem or "no conclusion has a code or term that is known")
            continue
        if statement.contradicts_itself:
            _odd(issues, line, '"No Finding" stands beside a finding, and counts for nothing')
        labels = labels_of(statement, scope=settings.scope, source=f"{path.name}:conclusionCode", origin=origin)
        for key in keys:
            one = (_time_of(report), line, labels)
            latest[key] = max(latest.get(key, one), one, key=lambda each: each[:2])
    if not rows:
        raise LabelsInvalid(
            "the file holds no DiagnosticReport", where=str(path), remedy="Give an ndjson export of DiagnosticReports."
        )
    return LabelTable(
        path=path,
        origin=origin,
        keyed_by="study UIDs and accession numbers of the reports",
        keys={key: labels for key, (_, _, labels) in latest.items()},
        rows=rows,
        unmapped=book.terms.unmapped,
        outside=book.terms.outside,
        issues=tuple(sorted(issues)),
    )


def _reports(path: Path, content: bytes, issues: list[Issue]) -> Iterator[tuple[int, Resource]]:
    """Yield (line, DiagnosticReport); other resources are passed over, other text is an issue."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in {b"{", b""}:
        raise LabelsInvalid(
            "this is not ndjson: a line does not begin with {", where=f"{path}:1", remedy="Export one resource a line."
        )
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            resource = json.loads(line)
        except (ValueError, RecursionError):
            _odd(issues, number, "the line is no JSON; a resource must stand on one line", fatal=True)
            continue
        if isinstance(resource, dict) and resource.get("resourceType") == "DiagnosticReport":
            yield number, resource


def _unusable(report: Resource, keys: list[Key]) -> str:
    if _text(report.get("status")) not in _VALID:
        return "the report is not final"
    if report.get("modifierExtension"):
        return "the report has a modifier extension, which may turn what it says into its opposite"
    return "" if keys else "the report names no study UID and no accession number"


def _time_of(report: Resource) -> datetime:
    """Return when a report was issued, else of when it is; the earliest time there is if it does not say.

    FHIR's instants have fractions and offsets, other ones in summer than in winter: their text does not sort by time.
    """
    for written in (_text(report.get("issued")), _text(report.get("effectiveDateTime"))):
        try:
            found = datetime.fromisoformat(written + "-01-01"[len(written) - 4 :] if len(written) in {4, 7} else written)
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)


def _keys(report: Resource) -> Iterator[Key]:
    """Yield what the report is about: study UIDs, else accession numbers, wherever FHIR may put them."""
    studies = [item for item in _items(report.get("contained")) if item.get("resourceType") == "ImagingStudy"]
    references = [*_items(report.get("imagingStudy")), *_items(report.get("study")), *_items(report.get("basedOn"))]
    identifiers = [*_items(report.get("identifier"))]
    identifiers += [one for study in studies for one in _items(study.get("identifier"))]
    identifiers += [one for reference in references for one in _items([reference.get("identifier")])]
    identifiers += [
        one for study in studies for order in _items(study.get("basedOn")) for one in _items([order.get("identifier")])
    ]
    for identifier in identifiers:
        value = _text(identifier.get("value"))
        if value.startswith(_UID):
            yield Key("study_instance_uid", value.removeprefix(_UID))
        elif value and "ACSN" in {_text(code.get("code")) for code in _codings([identifier.get("type")])}:
            yield Key("accession_number", value)


def _statement(report: Resource, book: CodeBook) -> Statement:
    said: dict[Finding, tuple[Said, str]] = {}
    for concept in _items(report.get("conclusionCode")):
        codings = list(_codings([concept]))
        found = [_meaning(book, code) for code in codings] if codings else [_term(book, _text(concept.get("text")))]
        said |= {finding: (Said.PRESENT, term) for finding, term in found if finding is not None}
    if not said and (text := _text(report.get("conclusion"))):
        finding, term = _term(book, text)
        said |= {} if finding is None else {finding: (Said.PRESENT, term)}
    return Statement(said, silent=not said)


def _meaning(book: CodeBook, code: Resource) -> tuple[Finding | None, str]:
    value, display = _text(code.get("code")), _text(code.get("display"))
    return book.finding(_text(code.get("system")), value, display), display[:_TERM] or value[:_TERM]


def _term(book: CodeBook, text: str) -> tuple[Finding | None, str]:
    finding = book.terms.finding(text.rstrip(".")) if text else None
    return finding, text[:_TERM] if finding is not None else ""


def _codings(concepts: list[Any]) -> Iterator[Resource]:
    for concept in _items(concepts):
        yield from _items(concept.get("coding"))


def _items(value: Any) -> list[Resource]:
    """Return the objects of a list that should be one of objects."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _odd(issues: list[Issue], line: int, problem: str, *, fatal: bool = False) -> None:
    if len(issues) < MAX_ISSUES:
        issues.append(Issue(line, "", problem, fatal))
