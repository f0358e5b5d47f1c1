"""Local words and values become findings; what nobody looked for stays unknown; a wrong file is refused with a remedy."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.cases import Finding
from silo_app.catalogue.writing import Identity
from silo_app.config import CsvLabels, TagLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels import Vocabulary, as_reported, read_labels
from tests.imaging.labels.conftest import said

SCOPE = (Finding.PNEUMONIA, Finding.MASS)


def findings(text, **settings):
    vocabulary = Vocabulary(TagLabels(**({"scope": SCOPE} | settings)))
    return {label.finding: label.present for label in vocabulary.labels(text)}, dict(vocabulary.unmapped)


@pytest.mark.parametrize(
    ("text", "known", "unmapped"),
    [
        ("Pneumonia", {"Pneumonia": True, "Mass": False}, {}),
        ("pneumonia | MASS", {"Pneumonia": True, "Mass": True}, {}),
        ("Effusion", {"Effusion": True, "Pneumonia": False, "Mass": False}, {}),
        ("No Finding", {"No Finding": True, "Pneumonia": False, "Mass": False}, {}),
        ("normal", {"No Finding": True, "Pneumonia": False, "Mass": False}, {}),
        ("bacteria", {"Pneumonia": True, "Mass": False}, {}),
        ("No Finding|Mass", {"Mass": True, "Pneumonia": False}, {}),
        ("", {}, {}),
        ("CHEST PA", {}, {"CHEST PA": 1}),
        ("scoliosis", {"Pneumonia": False, "Mass": False}, {}),
        ("Gout|Mass|gout", {"Mass": True, "Pneumonia": False}, {"Gout": 1, "gout": 1}),
        ("Pleural_Thickening", {"Pleural Thickening": True, "Pneumonia": False, "Mass": False}, {}),
    ],
)
def test_words_of_an_attribute_become_findings(text, known, unmapped):
    assert findings(text, mapping={"Normal": "No Finding", "bacteria": "Pneumonia", "scoliosis": None}) == (known, unmapped)


def test_without_a_scope_nothing_is_absent():
    assert findings("Mass", scope=()) == ({Finding.MASS: True}, {})
    assert findings("No Finding", scope=()) == ({Finding.NO_FINDING: True}, {})


@given(st.sets(st.sampled_from(sorted(Finding))), st.sets(st.sampled_from(sorted(Finding))))
def test_absence_comes_from_the_scope_alone(named, scope):
    known, _ = findings("|".join(named), scope=tuple(scope))
    assert {finding for finding, present in known.items() if not present} <= scope
    assert {finding for finding, present in known.items() if present} <= named


def test_what_looks_like_free_text_is_counted_and_not_quoted():
    words = {"Gout": 3, "no acute disease of the heart or the lungs": 2, "DOE^JANE": 1, "born 1950": 1, "x" * 60: 1}
    assert as_reported(words) == {"(free text)": 5, "Gout": 3}


def test_csv_of_names_with_provenance(read_own):
    table = read_own("\ufefffile,age,findings\na.dcm,3,Mass\n\nb.dcm,4,\nc.dcm,4,No Finding\n")
    assert said(table) == {
        "a.dcm": {"Mass": True, "Pneumonia": False},
        "b.dcm": {"Mass": False, "Pneumonia": False},
        "c.dcm": {"Mass": False, "Pneumonia": False, "No Finding": True},
    }
    (label,) = [label for label in next(iter(table.keys.values())) if label.present]
    assert (label.source, label.term) == ("labels.csv:findings", "Mass")
    assert (label.origin.source, label.origin.preset, len(label.origin.digest)) == ("labels.csv", "csv", 64)
    assert label.origin.since


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ("Pneumonai", {}),
        ("Scoliosis|Gout", {}),
        ("fine", {"Pneumonia": False, "Mass": False}),
        ("Mass|Gout", {"Mass": True, "Pneumonia": False}),
        ("", {"Pneumonia": False, "Mass": False}),
    ],
)
def test_words_that_nobody_mapped_deny_nothing(read_own, words, known):
    table = read_own(f"file,says\na,{words}\n", findings_column="says", mapping={"fine": None})
    assert said(table) == {"a": known}


COLUMNS = {"pn": "Pneumonia", "mass": "Mass", "ok": "No Finding"}


@pytest.mark.parametrize(
    ("row", "uncertain", "known"),
    [
        ("1,0,", "u-ignore", {"Pneumonia": True, "Mass": False}),
        ("-1,,", "u-ignore", {}),
        ("-1,,", "u-ones", {"Pneumonia": True}),
        ("-1,,", "u-zeros", {"Pneumonia": False}),
        (",,1", "u-ignore", {"No Finding": True, "Pneumonia": False, "Mass": False}),
        (",,0", "u-ignore", {}),
        ("1,,1", "u-ignore", {"Pneumonia": True}),
        ("-1,,1", "u-ignore", {}),
        (" 1.0 ,0.0,", "u-ignore", {"Pneumonia": True, "Mass": False}),
    ],
)
def test_values_in_columns_and_the_policy_of_uncertainty(read_own, row, uncertain, known):
    table = read_own(f"file,pn,mass,ok\na,{row}\n", columns=COLUMNS, scope=(), uncertain=uncertain)
    assert said(table) == {"a": known}


def test_own_words_for_values_and_another_separator(read_own):
    table = read_own(
        "file;pn;mass\na;yes;no\nb;maybe;?\n",
        columns={"pn": "Pneumonia", "mass": "Mass"},
        values={"yes": "present", "no": "absent", "?": "unknown"},
        delimiter=";",
        scope=(),
    )
    assert said(table) == {"a": {"Pneumonia": True, "Mass": False}, "b": {}}
    assert [str(issue) for issue in table.issues] == ["line 3, column pn: the value is none of 'yes', 'no', '?'"]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("file,findings\nä,Mass\n".encode("latin-1"), "latin-1"),
        ("file,findings\nä,Mass\n".encode("utf-16"), "utf-16"),
        (codecs.BOM_UTF8 + "file,findings\nä,Mass\n".encode(), "utf-8"),
        (codecs.BOM_UTF8 + "file,findings\nä,Mass\n".encode(), "latin-1"),
    ],
)
def test_encodings_and_byte_order_marks(read_own, content, encoding):
    assert list(said(read_own(content, encoding=encoding))) == ["ä"]


@pytest.mark.parametrize(
    ("content", "problem", "where"),
    [
        ("file,labels\na,b\n", "no column findings; the columns are: file, labels", "labels.csv:1"),
        ("image;findings\na;b\n", "no column file and no column findings; the columns are: image;findings", "labels.csv:1"),
        ("", "the columns are: none", "labels.csv:1"),
        ("file,findings\n", "no line with a key", "labels.csv"),
        ("file,findings\n,Mass\n", "no line with a key", "labels.csv"),
        ("file,findings,file\na,b,c\n", "the column file stands in the header more than once", "labels.csv:1"),
        ("file,findings\na,Mass\nb,\na,Pneumonia\n", "line 4, column findings: says otherwise than line 2", "labels.csv"),
        ("file,findings\na,Mass,x\n", "line 2: the line has more or fewer cells than the header", "labels.csv"),
        ("file,findings\na,b\n\nä,M\xe4ss\n".encode("latin-1"), "not UTF-8 (byte 19, line 4)", "labels.csv"),
        (b"\x00\x01\xff\xfe\x80", "not UTF-8", "labels.csv"),
        ("file,findings\na,Mass\n".encode("utf-16"), "begins like one in UTF-16", "labels.csv"),
        ('file,findings\n"a,Mass\n', "not a CSV file", "labels.csv:2"),
    ],
)
def test_wrong_csv_is_refused_naming_file_line_column_and_remedy(read_own, content, problem, where):
    with pytest.raises(LabelsInvalid) as caught:
        read_own(content)
    assert problem in caught.value.problem
    assert caught.value.where.endswith(where)
    assert caught.value.remedy


def test_a_wrong_separator_is_guessed(read_own):
    with pytest.raises(LabelsInvalid) as caught:
        read_own("file;findings\na;b\n")
    assert "set `delimiter`" in caught.value.remedy


def test_a_lenient_reader_lists_everything_that_is_wrong(read_own):
    table = read_own("file,findings\na,Mass\na,\nb\n,Mass\nc,No Finding|Mass\n", lenient=True)
    assert [str(issue) for issue in table.issues] == [
        "line 3, column findings: says otherwise than line 2, which has the same file",
        "line 4: the line has more or fewer cells than the header",
        "line 5, column file: the key is empty, or has too few parts",
        'line 6, column findings: "No Finding" stands beside a finding, and counts for nothing',
    ]
    assert [issue.fatal for issue in table.issues] == [True, True, False, False]


def test_a_file_that_is_odd_everywhere_keeps_the_first_lines_and_the_count(read_own):
    table = read_own("file,findings\n" + ",Mass\n" * 500 + "a,Mass\nb\n", lenient=True)
    assert len(table.issues) == 201
    assert table.issue_count == 501
    assert [issue.line for issue in table.issues if issue.fatal] == [503]


def test_missing_csv_is_refused(tmp_path):
    with pytest.raises(LabelsInvalid, match="No such file"):
        read_labels(CsvLabels(path=tmp_path / "no.csv"), tmp_path / "no.csv")


def test_same_line_twice_is_one(read_own):
    table = read_own("file,findings\na,Mass|Pneumonia\na,pneumonia | mass\n")
    assert (table.rows, len(table.keys)) == (2, 1)


def view(digest, *paths, **names):
    values = {"instance": "", "study_uid": "", "accession": "", "patient_id": ""} | names
    return Identity(digest=digest, paths=paths, **values)


def test_file_keys_match_the_path_and_the_name_only_if_it_is_unique(read_own):
    read = read_own("file,findings\na/1.dcm,Mass\n2.dcm,Mass\n3.dcm,Mass\nnowhere.dcm,Mass\n")
    views = [view("d1", "a/1.dcm"), view("d2", "a/2.dcm"), view("d3", "a/3.dcm"), view("d4", "b/3.dcm")]
    labels, unmatched = read.matched(views, lambda kind, value: value)
    assert set(labels) == {"d1", "d2"}
    assert unmatched == 2


def test_image_keys_match_whatever_the_extension(read_own):
    read = read_own("file,findings\nx/1.png,Mass\n2.png,Mass\n3,Mass\n", key="image")
    views = [view("d1", "a/1.dcm"), view("d2", "a/2"), view("d3", "a/3.dcm"), view("d4", "b/3.dcm")]
    labels, unmatched = read.matched(views, lambda kind, value: value)
    assert set(labels) == {"d1", "d2"}
    assert unmatched == 1


@pytest.mark.parametrize(
    ("key", "kind", "attribute"),
    [
        ("sop_instance_uid", "instance", "instance"),
        ("study_instance_uid", "study-uid", "study_uid"),
        ("accession_number", "accession", "accession"),
        ("patient_id", "patient-id", "patient_id"),
    ],
)
def test_identifiers_match_by_their_pseudonyms(read_own, key, kind, attribute):
    read = read_own("file,findings\n77,Mass\n78,Mass\n", key=key)
    views = [view("d1", "1", **{attribute: f"{kind}:77"}), view("d2", "2", **{attribute: f"{kind}:77"}), view("d3", "3")]
    labels, unmatched = read.matched(views, lambda kind, value: f"{kind}:{value}")
    assert set(labels) == {"d1", "d2"}
    assert unmatched == 1
