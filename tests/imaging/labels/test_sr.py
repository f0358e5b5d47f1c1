"""Structured Reports: coded findings of a study or of the images that they refer to; denials deny."""

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from silo_app.config import SrLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels import read_labels
from tests.imaging.labels.conftest import said

FINDING = ("121071", "DCM", "Finding")
PNEUMOTHORAX = ("36118008", "SCT", "Pneumothorax")
EFFUSION = ("60046008", "SCT", "Pleural effusion")
PRESENT = ("52101004", "SCT", "Present")
ABSENT = ("272519000", "SCT", "Absent")


def code(value, scheme, meaning):
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def node(kind, name, value=None, *children):
    ds = Dataset()
    ds.RelationshipType, ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINS", kind, [code(*name)]
    if kind == "CODE":
        ds.ConceptCodeSequence = [code(*value)]
    if kind == "TEXT":
        ds.TextValue = value
    ds.ContentSequence = list(children)
    return ds


def image(uid):
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "INFERRED FROM", "IMAGE"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", uid
    ds.ReferencedSOPSequence = [reference]
    return ds


def sr(*children, study="1.2.3", evidence=(), **fields):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", generate_uid()
    ds.Modality, ds.StudyInstanceUID, ds.CompletionFlag, ds.ContentDate = "SR", study, "COMPLETE", "20260101"
    ds.ContentTime = "120000"
    ds.ContentSequence = [node("CONTAINER", ("121070", "DCM", "Findings"), None, *children)]
    ds.CurrentRequestedProcedureEvidenceSequence = [Dataset() for _ in evidence]
    for place, uid in zip(ds.CurrentRequestedProcedureEvidenceSequence, evidence, strict=True):
        place.StudyInstanceUID = uid
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def read(tmp_path):
    def read(*reports, **settings):
        folder = tmp_path / "sr"
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        (folder / "note.txt").write_text("no report")
        for number, ds in enumerate(reports):
            ds.save_as(folder / "deep" / f"{number}.dcm", enforce_file_format=True)
        return read_labels(SrLabels(path=folder, **settings), folder)

    return read


def test_a_finding_is_of_the_reports_study(read):
    table = read(sr(node("CODE", FINDING, PNEUMOTHORAX)), scope=("Mass",))
    assert said(table) == {"1.2.3": {"Mass": False, "Pneumothorax": True}}
    (label,) = [label for label in next(iter(table.keys.values())) if label.present]
    assert (label.term, label.origin.preset, label.origin.source) == ("Pneumothorax", "sr/1", "sr")


def test_evidence_names_the_study(read):
    assert set(said(read(sr(node("CODE", FINDING, PNEUMOTHORAX), evidence=["1.7"])))) == {"1.7"}


def test_an_earlier_study_that_was_compared_gets_no_label(read):
    """Its own report is older than this one, and would be overruled."""
    finding = node("CODE", FINDING, PNEUMOTHORAX)
    before = Dataset()
    before.StudyInstanceUID = "1.1"
    assert set(said(read(sr(finding, evidence=["1.1", "1.2.3"])))) == {"1.2.3"}
    assert set(said(read(sr(finding, PertinentOtherEvidenceSequence=[before])))) == {"1.2.3"}
    assert set(said(read(sr(finding, evidence=["1.7"], PertinentOtherEvidenceSequence=[before])))) == {"1.7"}


@pytest.mark.parametrize(
    ("item", "known"),
    [
        (node("CODE", EFFUSION, PRESENT), {"Effusion": True}),
        (node("CODE", EFFUSION, ABSENT), {"Effusion": False}),
        (node("CODE", EFFUSION, ("R-00339", "SRT", "No")), {"Effusion": False}),
        (node("CODE", FINDING, EFFUSION, node("CODE", ("1", "99X", "Presence"), ABSENT)), {"Effusion": False}),
        (node("CODE", FINDING, ("X", "99X", "Big heart")), {"Cardiomegaly": True}),
        (node("CODE", FINDING, ("112121", "DCM", "Infiltrate")), {"Infiltration": True}),
    ],
)
def test_affirmed_and_denied(read, item, known):
    assert said(read(sr(item), mapping={"big heart": "Cardiomegaly"})) == {"1.2.3": known}


def test_a_finding_with_an_image_is_of_that_image(read):
    group = node("CONTAINER", ("125007", "DCM", "Measurement Group"), None, node("CODE", FINDING, EFFUSION), image("5.1"))
    table = read(sr(group, node("CODE", FINDING, PNEUMOTHORAX, image("5.2")), node("CODE", FINDING, PNEUMOTHORAX)))
    assert {(key.kind, key.value): set(said(table)[key.value]) for key in table.keys} == {
        ("sop_instance_uid", "5.1"): {"Effusion"},
        ("sop_instance_uid", "5.2"): {"Pneumothorax"},
        ("study_instance_uid", "1.2.3"): {"Pneumothorax"},
    }


def test_the_latest_report_counts(read):
    early = sr(node("CODE", FINDING, PNEUMOTHORAX))
    late = sr(node("CODE", FINDING, EFFUSION), ContentDate="20260301")
    assert said(read(late, early)) == {"1.2.3": {"Effusion": True}}


@pytest.mark.parametrize("time", ["", "1130", "115959.999"])
def test_the_report_of_the_later_time_counts(read, time):
    early = sr(node("CODE", FINDING, PNEUMOTHORAX), ContentTime=time, SOPInstanceUID="2.25.9")
    late = sr(node("CODE", FINDING, EFFUSION), SOPInstanceUID="1.2")
    assert said(read(late, early)) == {"1.2.3": {"Effusion": True}}


def test_what_is_not_read_is_counted(read):
    text = node("TEXT", FINDING, "There is a pneumothorax")
    table = read(sr(text), sr(node("CODE", FINDING, ("7", "99X", "Gout"))), sr(text, CompletionFlag="PARTIAL"))
    assert table.keys == {}
    assert [str(issue) for issue in table.issues] == [
        "2 reports: no coded finding that is known",
        "1 reports: not complete, and not read",
    ]
    assert dict(table.unmapped) == {"Gout": 1}


def test_a_deep_tree_is_bounded(read):
    item = node("CODE", FINDING, PNEUMOTHORAX)
    for _ in range(100):
        item = node("CONTAINER", ("121070", "DCM", "Findings"), None, item)
    assert read(sr(node("CODE", FINDING, EFFUSION), item)).rows == 1


def test_a_folder_without_a_report_is_refused(read, tmp_path):
    with pytest.raises(LabelsInvalid, match="no file of the folder is an SR"):
        read()
    with pytest.raises(LabelsInvalid, match="no such folder"):
        read_labels(SrLabels(path=tmp_path / "no"), tmp_path / "no")


def test_damaged_reports_are_no_crash(read, tmp_path):
    good = sr(node("CODE", FINDING, PNEUMOTHORAX))
    read(good)
    content = (tmp_path / "sr" / "deep" / "0.dcm").read_bytes()
    for length in range(0, len(content), 97):
        (tmp_path / "sr" / f"cut{length}.dcm").write_bytes(content[:length])
    for place in range(140, len(content), 61):
        (tmp_path / "sr" / f"odd{place}.dcm").write_bytes(content[:place] + b"\xff\x00" + content[place + 2 :])
    table = read()
    assert said(table)["1.2.3"] == {"Pneumothorax": True}
