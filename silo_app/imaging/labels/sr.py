"""DICOM Structured Reports -> labels: coded findings (TID 1500, TID 2000 and alike), matched by study or by image.

A finding is a CODE item named Finding (121071, DCM) whose value is known, or one whose name is itself a finding and whose
value is present, absent, yes or no (CID 240, CID 230). An item below a finding that says absent denies it. Text items are
not read.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from silo_app.cases import Finding
from silo_app.catalogue.records import Label, Origin
from silo_app.config import SrLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.attributes import identifier, item, text, word
from silo_app.imaging.labels.codes import ABSENT, PRESENT, CodeBook
from silo_app.imaging.labels.statement import Statement, labels_of, united
from silo_app.imaging.labels.table import Issue, Key, LabelTable
from silo_app.imaging.labels.vocabulary import Terms
from silo_app.imaging.parse import quiet
from silo_app.settings.labels import Said

__all__ = ["read_sr"]

_FINDING = {"121071", "121073", "121077"}  # DCM: Finding, Impression, Conclusion
_MAX_DEPTH = 32
_MAX_ITEMS = 20_000
_MAX_BYTES = 64 << 20


def read_sr(settings: SrLabels, folder: Path, since: str) -> LabelTable:
    """Read every SR below a folder; of several reports that speak of one study or image the latest counts."""
    if not folder.is_dir():
        raise LabelsInvalid("there is no such folder", where=str(folder), remedy="Name a folder of SR files under `labels`.")
    book = CodeBook(settings.codes, Terms(settings.mapping))
    total, reports, issues = hashlib.sha256(), 0, Counter[str]()
    latest: dict[Key, tuple[tuple[str, str, str], Statement]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        ds = _report(path)
        if ds is None:
            continue
        reports += 1
        total.update(identifier(ds, "SOPInstanceUID").encode() + b"\n")
        problem, statements = _said(ds, book)
        issues[problem] += bool(problem)
        when = text(ds, "ContentDate"), text(ds, "ContentTime"), identifier(ds, "SOPInstanceUID")
        for key, statement in statements.items():
            latest[key] = max(latest.get(key, (when, statement)), (when, statement), key=lambda each: each[0])
    if not reports:
        raise LabelsInvalid("no file of the folder is an SR", where=str(folder), remedy="Name a folder of SR files.")
    origin = Origin(source=folder.name, preset="sr/1", digest=total.hexdigest(), since=since)
    return LabelTable(
        path=folder,
        origin=origin,
        keyed_by="studies and images that the reports refer to",
        keys={key: _labels(statement, settings, origin) for key, (_, statement) in latest.items()},
        rows=reports,
        unmapped=book.terms.unmapped,
        outside=book.terms.outside,
        issues=tuple(Issue(0, "", f"{count} reports: {what}") for what, count in issues.most_common() if count),
    )


def _labels(statement: Statement, settings: SrLabels, origin: Origin) -> tuple[Label, ...]:
    return labels_of(statement, scope=settings.scope, source=f"{origin.source}:SR", origin=origin)


@quiet()
def _report(path: Path) -> Dataset | None:
    """Read an SR, or None for whatever else lies there."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        ds = pydicom.dcmread(path, stop_before_pixels=True)  # images may lie in the same folder
        return ds if word(ds, "Modality") == "SR" and "ContentSequence" in ds else None
    except Exception:  # noqa: BLE001  (a file of any kind: pydicom raises whatever a parser raises)
        return None


@dataclass(slots=True)
class _Found:
    """One coded finding and the images that its item refers to."""

    statement: Statement
    images: list[str] = field(default_factory=list)


@quiet()
def _said(ds: Dataset, book: CodeBook) -> tuple[str, dict[Key, Statement]]:
    """Return what is wrong with a report, or "", and what it says by image and by study."""
    if word(ds, "CompletionFlag") == "PARTIAL":
        return "not complete, and not read", {}
    try:
        found = list(_findings(ds, book, [_MAX_ITEMS]))
        studies = _studies(ds)
    except Exception:  # noqa: BLE001  (values of a foreign file: pydicom raises whatever a converter raises)
        return "damaged, and not read", {}
    by_key: dict[Key, list[Statement]] = {}
    for one in found:
        keys = [Key("sop_instance_uid", uid) for uid in one.images] or [Key("study_instance_uid", uid) for uid in studies]
        for key in keys:
            by_key.setdefault(key, []).append(one.statement)
    if not by_key:
        return "no coded finding that is known", {}
    return "", {key: united(statements) for key, statements in by_key.items()}


def _studies(ds: Dataset) -> list[str]:
    """Return the studies that the report is about: its own if its evidence is of that, else those of the evidence.

    Images of before that a reader compared with are evidence too, in the same sequence where the report refers to them, or
    as Pertinent Other Evidence (PS3.3 C.17.2.3): what is found now says nothing of them.
    """
    own = identifier(ds, "StudyInstanceUID")
    evidence = [identifier(study, "StudyInstanceUID") for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or []]
    found = list(dict.fromkeys(filter(None, evidence)))
    return [own] if own and (own in found or not found) else found


def _findings(ds: Dataset, book: CodeBook, budget: list[int], depth: int = 0) -> Iterator[_Found]:
    """Yield the coded findings of a content tree; images of a container are those of its findings."""
    for node in ds.get("ContentSequence") or []:
        budget[0] -= 1
        if budget[0] < 0 or depth > _MAX_DEPTH:
            return
        found = _coded(node, book) if word(node, "ValueType") == "CODE" else None
        if found is not None:
            images = _images(node) or _images(ds)
            yield _Found(Statement({found[0]: (_modified(node, found[1]), found[2])}), images)
        yield from _findings(node, book, budget, depth + 1)


def _coded(node: Dataset, book: CodeBook) -> tuple[Finding, Said, str] | None:
    """Return the finding of a CODE item, and whether it is affirmed or denied."""
    name, value = item(node, "ConceptNameCodeSequence"), item(node, "ConceptCodeSequence")
    if name is None or value is None:
        return None
    code = text(value, "CodeValue")
    if text(name, "CodeValue") in _FINDING and text(name, "CodingSchemeDesignator") == "DCM":
        finding = _meaning(value, book)
        return None if finding is None else (finding, Said.PRESENT, text(value, "CodeMeaning")[:64])
    if code in PRESENT | ABSENT:
        finding = _meaning(name, book)
        said = Said.PRESENT if code in PRESENT else Said.ABSENT
        return None if finding is None else (finding, said, text(name, "CodeMeaning")[:64])
    return None


def _modified(node: Dataset, said: Said) -> Said:
    """Return `said`, or ABSENT if an item right below denies it."""
    below = [item(child, "ConceptCodeSequence") for child in node.get("ContentSequence") or []]
    return Said.ABSENT if any(value is not None and text(value, "CodeValue") in ABSENT for value in below) else said


def _meaning(code: Dataset, book: CodeBook) -> Finding | None:
    return book.finding(text(code, "CodingSchemeDesignator"), text(code, "CodeValue"), text(code, "CodeMeaning"))


def _images(node: Dataset) -> list[str]:
    """Return the instance UIDs of the IMAGE items right below, and below a spatial coordinate there."""
    uids = []
    for child in node.get("ContentSequence") or []:
        if word(child, "ValueType") == "IMAGE":
            reference = item(child, "ReferencedSOPSequence")
            uids += [identifier(reference, "ReferencedSOPInstanceUID")] if reference is not None else []
        elif word(child, "ValueType") == "SCOORD":
            uids += _images(child)
    return list(dict.fromkeys(filter(None, uids)))
