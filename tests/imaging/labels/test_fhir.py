"""DiagnosticReports: codes and terms become findings of the study that the report names; language is not interpreted."""

import json

import pytest

from silo_app.config import FhirLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels import read_labels
from tests.imaging.labels.conftest import said

SNOMED = "http://snomed.info/sct"


def coded(code, display="", system=SNOMED):
    return {"coding": [{"system": system, "code": code, "display": display}]}


def report(*conclusions, study="1.2.3", **fields):
    reference = {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}}
    base = {"resourceType": "DiagnosticReport", "status": "final", "imagingStudy": [reference], "issued": "2026-01-01"}
    return base | {"conclusionCode": list(conclusions)} | fields


@pytest.fixture
def read(tmp_path):
    def read(*resources, content=None, lenient=True, **settings):
        path = tmp_path / "reports.ndjson"
        path.write_bytes(content if content is not None else "\n".join(map(json.dumps, resources)).encode())
        return read_labels(FhirLabels(path=path, **settings), path, lenient=lenient)

    return read


@pytest.mark.parametrize(
    ("concept", "known"),
    [
        (coded("36118008", "Pneumothorax"), {"Pneumothorax": True}),
        (coded("RID34539", "pleural effusion", "http://www.radlex.org"), {"Effusion": True}),
        (coded("X1", "Cardiomegaly", "http://hospital.example"), {"Cardiomegaly": True}),
        (coded("X1", "Big heart", "http://hospital.example"), {"Cardiomegaly": True}),
        (coded("X2", "", "http://hospital.example"), {"Mass": True}),
        ({"text": "Nodule"}, {"Nodule": True}),
        ({"text": "No finding"}, {"No Finding": True}),
    ],
)
def test_codes_displays_and_terms(read, concept, known):
    table = read(report(concept), codes={"http://hospital.example|X2": "Mass"}, mapping={"big heart": "Cardiomegaly"})
    assert said(table) == {"1.2.3": known}


def test_the_scope_makes_absences_and_unknown_codes_are_counted(read):
    table = read(report(coded("36118008"), coded("99999", "Situs inversus")), scope=("Mass", "Pneumothorax"))
    assert said(table) == {"1.2.3": {"Mass": False, "Pneumothorax": True}}
    assert dict(table.unmapped) == {"Situs inversus": 1}


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (report(coded("36118008"), status="preliminary"), "the report is not final"),
        (report(coded("36118008"), status="entered-in-error"), "the report is not final"),
        (
            report(coded("36118008"), modifierExtension=[{"url": "http://hospital.example/negated"}]),
            "the report has a modifier extension, which may turn what it says into its opposite",
        ),
        (report(coded("36118008"), imagingStudy=[]), "the report names no study UID and no accession number"),
        (report(coded("123", "something else")), "no conclusion has a code or term that is known"),
        (report(conclusion="There is no pneumothorax."), "no conclusion has a code or term that is known"),
    ],
)
def test_what_a_report_lacks_is_reported_with_its_line(read, resource, problem):
    table = read(report(coded("36118008"), study="9"), resource)
    assert set(said(table)) == {"9"}
    assert [str(issue) for issue in table.issues] == [f"line 2: {problem}"]


def test_the_report_issued_last_counts(read):
    early, late = report(coded("36118008"), issued="2026-01-01"), report(coded("233604007"), issued="2026-02-01")
    assert said(read(late, early)) == {"1.2.3": {"Pneumonia": True}}


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2025-10-26T02:30:00+02:00", "2025-10-26T02:10:00+01:00"),  # the night in which summer time ends
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.500Z"),
        ("2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00Z"),
        ("2026", "2026-01-02T00:00:00Z"),
        ("2026-02", "2026-02-02"),
        ("", "2026"),
        ("soon", "2026-01"),
    ],
)
def test_the_report_issued_last_counts_whatever_its_clock(read, early, late):
    reports = [report(coded("233604007"), issued=late), report(coded("36118008"), issued=early)]
    assert said(read(*reports)) == said(read(*reversed(reports))) == {"1.2.3": {"Pneumonia": True}}


def test_a_report_is_matched_by_accession_number_too(read):
    typed = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
    table = read(
        report(coded("36118008"), imagingStudy=[], identifier=[{"type": typed, "value": "A7"}, {"value": "other"}]),
        report(coded("36118008"), imagingStudy=[], basedOn=[{"identifier": {"type": typed, "value": "A8"}}]),
        report(
            coded("36118008"),
            imagingStudy=[{"reference": "#s"}],
            contained=[{"resourceType": "ImagingStudy", "identifier": [{"value": "urn:oid:1.9"}]}],
        ),
    )
    assert sorted((key.kind, key.value) for key in table.keys) == [
        ("accession_number", "A7"),
        ("accession_number", "A8"),
        ("study_instance_uid", "1.9"),
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no DiagnosticReport"),
        (b'{"resourceType": "Patient"}\n', "holds no DiagnosticReport"),
        (b"file,findings\na,b\n", "this is not ndjson"),
        (b'{"resourceType": "DiagnosticReport"}\n{"half', "line 2: the line is no JSON"),
        (b'{"resourceType": "DiagnosticReport"}\n' + b"[" * 100_000, "line 2: the line is no JSON"),
    ],
)
def test_what_is_no_export_is_refused(read, content, problem):
    with pytest.raises(LabelsInvalid) as caught:
        read(content=content, lenient=False)
    assert problem in caught.value.problem


@pytest.mark.parametrize("odd", [None, 7, "x", [7], {"coding": 7}, {"coding": [7]}, {"coding": [{"code": 7}]}])
def test_odd_shapes_are_no_crash(read, odd):
    table = read(
        report(odd, identifier=odd, basedOn=[odd], contained=[odd], issued=odd), report(coded("36118008"), study="9")
    )
    assert said(table)["9"] == {"Pneumothorax": True}
