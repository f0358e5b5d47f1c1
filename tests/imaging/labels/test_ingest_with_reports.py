"""Reports label a silo's images: by their study, found by keyed pseudonyms; a label remembers where it came from."""

import json

import pytest

from silo_app.cases import Finding
from silo_app.catalogue import Catalogue
from silo_app.errors import LabelsInvalid
from silo_app.imaging.ingest import ingest
from tests.imaging.labels.test_fhir import coded, report
from tests.imaging.labels.test_sr import EFFUSION, FINDING, PNEUMOTHORAX, image, node, sr


@pytest.fixture
def source(tmp_path, make_dicom):
    (tmp_path / "source").mkdir()
    for number in range(3):
        facts = {"StudyInstanceUID": f"1.{number}", "SOPInstanceUID": f"5.{number}", "PatientID": f"P{number}"}
        (tmp_path / "source" / f"{number}.dcm").write_bytes(make_dicom(**facts))


def findings_of(home):
    with Catalogue.open(home.catalogue) as catalogue:
        found = [dict(view.findings) for view in catalogue.views()]
        origins = {label.origin for view in catalogue.views() for label in catalogue.labels_of(view.digest)}
    return sorted(found, key=str), origins


def test_fhir_reports(source, tmp_path, make_silo):
    file = tmp_path / "reports.ndjson"
    reports = [report(coded("36118008"), study="1.0"), report(coded("60046008"), study="1.1"), report(coded("1"), study="7")]
    file.write_text("\n".join(map(json.dumps, reports)))
    home = make_silo(labels={"kind": "fhir", "path": str(file)})
    outcome = ingest(home)
    assert (outcome.views, outcome.unlabelled, outcome.unmatched) == (3, 1, 0)
    found, origins = findings_of(home)
    assert found == [{Finding.EFFUSION: True}, {Finding.PNEUMOTHORAX: True}, {}]
    (origin,) = origins
    assert (origin.source, origin.preset) == ("reports.ndjson", "fhir/1")


def test_structured_reports(source, tmp_path, make_silo):
    folder = tmp_path / "sr"
    folder.mkdir()
    sr(node("CODE", FINDING, PNEUMOTHORAX), study="1.0").save_as(folder / "a.dcm", enforce_file_format=True)
    sr(node("CODE", FINDING, EFFUSION, image("5.2")), study="1.0").save_as(folder / "b.dcm", enforce_file_format=True)
    home = make_silo(labels={"kind": "sr", "path": str(folder)})
    assert ingest(home).unlabelled == 1
    found, _ = findings_of(home)
    assert found == [{Finding.EFFUSION: True}, {Finding.PNEUMOTHORAX: True}, {}]


def test_an_unchanged_file_changes_nothing_and_keeps_its_time(source, tmp_path, make_silo):
    file = tmp_path / "reports.ndjson"
    file.write_text(json.dumps(report(coded("36118008"), study="1.0")))
    home = make_silo(labels={"kind": "fhir", "path": str(file)})
    ingest(home)
    (before,) = findings_of(home)[1]
    ingest(home)
    (after,) = findings_of(home)[1]
    assert (after, after.since) == (before, before.since)
    file.write_text(json.dumps(report(coded("36118008"), study="1.0")) + "\n")
    ingest(home)
    (changed,) = findings_of(home)[1]
    assert changed.digest != before.digest


def test_reports_of_other_patients_are_refused(source, tmp_path, make_silo):
    file = tmp_path / "reports.ndjson"
    file.write_text(json.dumps(report(coded("36118008"), study="9.9")))
    with pytest.raises(LabelsInvalid, match="none of the 1 keys"):
        ingest(make_silo(labels={"kind": "fhir", "path": str(file)}))
