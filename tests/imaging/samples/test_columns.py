import pytest

from silo_app.cases import Finding
from silo_app.errors import LabelsInvalid, SampleInvalid
from silo_app.imaging.samples.columns import Columns, check, columns_for, finding, parse_mapping, preset, shared


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (["file", "patient_id", "finding", "subtype"], "pediatric"),
        (["file", "patient_id", "finding_labels", "age", "sex", "view_position", "follow_up"], "nih"),
        (
            [
                "Image Index",
                "Finding Labels",
                "Follow-up #",
                "Patient ID",
                "Patient Age",
                "Patient Gender",
                "View Position",
            ],
            "nih-original",
        ),
        (["file", "patient_id", "findings"], None),
        ([], None),
    ],
)
def test_known_headers_are_recognised(header, name):
    assert preset(header) == name


def test_presets_have_their_own_columns():
    for header in (["file", "patient_id", "finding", "subtype"],):
        check(columns_for(header, {}), header, "x")


def test_what_is_given_by_hand_changes_the_preset():
    columns = columns_for(["file", "patient_id", "finding", "subtype"], {"findings": "subtype"})
    assert columns.findings == "subtype"
    assert columns.mapping["pneumonia"] is Finding.PNEUMONIA


def test_a_missing_column_is_named_with_what_is_there_and_what_to_do():
    with pytest.raises(LabelsInvalid) as caught:
        check(Columns(), ["file", "name", "findings"], "set.zip:labels.csv")
    assert str(caught.value) == (
        "set.zip:labels.csv: column 'patient_id' is missing; the columns are 'file', 'name', 'findings'\n"
        "Name the right column with --patient-column."
    )


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("Pneumonia", Finding.PNEUMONIA),
        ("pleural_thickening", Finding.PLEURAL_THICKENING),
        ("NO FINDING", Finding.NO_FINDING),
        ("clear", Finding.NO_FINDING),
        ("CLEAR", Finding.NO_FINDING),
        ("cough", None),
    ],
)
def test_local_names_become_shared_ones(local, expected):
    assert shared(local, {"clear": Finding.NO_FINDING}) is expected


def test_mappings_are_parsed_or_refused():
    assert parse_mapping(["clear=No Finding", "PNA = pneumonia"]) == {
        "clear": Finding.NO_FINDING,
        "PNA": Finding.PNEUMONIA,
    }
    for bad in ("clear", "=Mass", "clear=fine"):
        with pytest.raises(SampleInvalid):
            parse_mapping([bad])


def test_an_unknown_finding_is_answered_with_the_vocabulary():
    with pytest.raises(SampleInvalid, match=r"'Cough' is not in the shared vocabulary\nUse one of: .*Pneumothorax"):
        finding("Cough")
