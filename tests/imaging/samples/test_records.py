import pytest

from silo_app.cases import Finding, Sex, ViewPosition
from silo_app.errors import LabelsInvalid, SampleInvalid
from silo_app.imaging.samples.columns import NIH_SCOPE
from silo_app.imaging.samples.image_set import ImageSet, opened
from silo_app.imaging.samples.records import read_records

HEADER = ["file", "patient_id", "findings"]


@pytest.fixture
def listing(tmp_path, make):
    def read(rows, images=("images/a.png", "images/b.png"), **columns):
        path = make.pack(tmp_path / "set.zip", {**dict.fromkeys(images, b"x"), "labels.csv": make.table(rows)})
        with opened(path) as content:
            return read_records(ImageSet(path=path, columns=columns), 0, content)

    return read


def test_the_nih_header_says_all_that_it_knows(listing):
    header = ["file", "patient_id", "finding_labels", "age", "sex", "view_position", "follow_up"]
    got = listing([header, ["a.png", "7", "Mass|Pleural_Thickening", "36", "F", "PA", "4"]])
    (record,) = got.records
    assert (record.file, record.patient, record.order, record.age) == ("images/a.png", "7", 4, 36)
    assert (record.sex, record.position) == (Sex.FEMALE, ViewPosition.PA)
    assert record.findings == (Finding.MASS, Finding.PLEURAL_THICKENING)
    assert got.scope == NIH_SCOPE


def test_the_pediatric_header_is_ap_and_about_pneumonia(listing):
    got = listing(
        [
            ["file", "patient_id", "finding", "subtype"],
            ["a.png", "1", "NORMAL", ""],
            ["b.png", "2", "pneumonia", "virus"],
        ]
    )
    assert [one.findings for one in got.records] == [(Finding.NO_FINDING,), (Finding.PNEUMONIA,)]
    assert {one.position for one in got.records} == {ViewPosition.AP}
    assert got.scope == (Finding.PNEUMONIA,)


def test_unmapped_names_are_counted_and_leave_unknown_not_absent(listing):
    got = listing([HEADER, ["a.png", "1", "cough"], ["b.png", "2", "Mass|cough"]])
    assert [one.findings for one in got.records] == [None, (Finding.MASS,)]
    assert got.unmapped == {"cough": 2}
    assert got.scope == (Finding.MASS,)


def test_a_finding_outweighs_no_finding_beside_it(listing):
    assert listing([HEADER, ["a.png", "1", "No Finding|Mass"]]).records[0].findings == (Finding.MASS,)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("none.png", "no such image in the set"),
        ("../images/a.png", "no such image in the set"),
        ("/etc/passwd", "no such image in the set"),
        ("labels.csv", "no such image in the set"),
        ("", "no such image in the set"),
        ("images/b.png", "named twice"),
    ],
)
def test_rows_without_an_image_of_their_own_are_skipped_with_the_reason(listing, given, reason):
    got = listing([HEADER, ["b.png", "1", "Mass"], [given, "2", "Mass"]])
    assert [(one.file, one.reason) for one in got.skipped] == [(given, reason)]
    assert len(got.records) == 1


def test_a_row_without_a_patient_is_skipped(listing):
    got = listing([HEADER, ["a.png", "", "Mass"], ["b.png", "2", "Mass"]])
    assert [one.reason for one in got.skipped] == ["no patient"]


def test_an_ambiguous_name_is_not_guessed(listing):
    images = ("train/a.png", "test/a.png", "test/b.png")
    got = listing([HEADER, ["a.png", "1", "Mass"], ["test/a.png", "1", "Mass"], ["b.png", "2", "Mass"]], images)
    assert [one.file for one in got.records] == ["test/a.png", "test/b.png"]
    assert len(got.skipped) == 1


@pytest.mark.parametrize(
    ("age", "expected"), [("36", 36), ("036Y", 36), ("36.0", 36), ("411", None), ("", None), ("x", None)]
)
def test_ages(listing, age, expected):
    got = listing([[*HEADER, "years"], ["a.png", "1", "Mass", age]], age="years")
    assert got.records[0].age == expected


def test_columns_by_hand(listing):
    rows = [["img", "who", "dx"], ["a.png", "1", "clear"], ["b.png", "2", "Mass; Nodule"]]
    columns = {"file": "img", "patient": "who", "findings": "dx", "separator": ";"}
    got = listing(rows, **columns, mapping={"clear": Finding.NO_FINDING}, scope=(Finding.MASS,))
    assert [one.findings for one in got.records] == [(Finding.NO_FINDING,), (Finding.MASS, Finding.NODULE)]
    assert got.scope == (Finding.MASS,)


def test_a_missing_column_is_an_error_and_no_image_at_all_too(listing):
    with pytest.raises(LabelsInvalid, match="column 'patient_id', 'findings' is missing; the columns are 'file'"):
        listing([["file"], ["a.png"]])
    with pytest.raises(SampleInvalid, match=r"none of the 1 rows of labels.csv names an image"):
        listing([HEADER, ["z.png", "1", "Mass"]])
    with pytest.raises(LabelsInvalid, match="the columns are none"):
        listing([])
