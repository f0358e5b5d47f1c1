"""Local words become findings; what nobody looked for stays unknown; a wrong file is refused with a remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.cases import Finding
from silo_app.catalogue.writing import Identity
from silo_app.config import CsvLabels, TagLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels import Vocabulary, read_csv

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
        ("", {"Pneumonia": False, "Mass": False}, {}),
        ("Gout|Mass|gout", {"Mass": True, "Pneumonia": False}, {"Gout": 1, "gout": 1}),
        ("Pleural_Thickening", {"Pleural Thickening": True, "Pneumonia": False, "Mass": False}, {}),
    ],
)
def test_words_become_findings(text, known, unmapped):
    assert findings(text, mapping={"Normal": "No Finding", "bacteria": "Pneumonia"}) == (known, unmapped)


def test_without_a_scope_nothing_is_absent():
    assert findings("Mass", scope=()) == ({Finding.MASS: True}, {})
    assert findings("No Finding", scope=()) == ({Finding.NO_FINDING: True}, {})


@given(st.sets(st.sampled_from(sorted(Finding))), st.sets(st.sampled_from(sorted(Finding))))
def test_absence_comes_from_the_scope_alone(named, scope):
    known, _ = findings("|".join(named), scope=tuple(scope))
    assert {finding for finding, present in known.items() if not present} <= scope
    assert {finding for finding, present in known.items() if present} <= named


def test_text_without_any_known_word_says_nothing_if_asked():
    vocabulary = Vocabulary(TagLabels(scope=SCOPE))
    assert vocabulary.labels("CHEST PA", scope_needs_word=True) == ()
    assert vocabulary.unmapped == {"CHEST PA": 1}


@pytest.fixture
def table(tmp_path):
    def read(content, **settings):
        path = tmp_path / "labels.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        options = {"path": path, "key": "file", "key_column": "file", "scope": SCOPE} | settings
        return read_csv(CsvLabels(**options), path)

    return read


def test_csv_of_labels_with_provenance(table):
    read = table("\ufefffile,age,findings\na.dcm,3,Mass\n\nb.dcm,4,\n")
    assert {key: {x.finding: x.present for x in labels} for key, labels in read.rows.items()} == {
        "a.dcm": {Finding.MASS: True, Finding.PNEUMONIA: False},
        "b.dcm": {Finding.MASS: False, Finding.PNEUMONIA: False},
    }
    assert [(x.source, x.term) for x in read.rows["a.dcm"] if x.present] == [("labels.csv:findings", "Mass")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file,labels\na,b\n", "no column findings; the columns are: file, labels"),
        ("image;findings\na;b\n", "no column file and no column findings; the columns are: image;findings"),
        ("", "the columns are: none"),
        ("file,findings\n", "no line with a key"),
        ("file,findings\n,Mass\n", "no line with a key"),
        ("file,findings\na,Mass\na,Pneumonia\n", "lines 2 and 3 have one file and different findings"),
        ("file,findings\na,M\xe4ss\n".encode("latin-1"), "not UTF-8"),
        (b"\x00\x01\xff\xfe\x80", "not UTF-8"),
        ('file,findings\n"a,Mass\n', "not a CSV file"),
    ],
)
def test_wrong_csv_is_refused_naming_file_and_remedy(table, content, problem):
    with pytest.raises(LabelsInvalid) as caught:
        table(content)
    assert problem in caught.value.problem
    assert caught.value.where.endswith("labels.csv")
    assert caught.value.remedy


def test_missing_csv_is_refused(tmp_path):
    with pytest.raises(LabelsInvalid, match="No such file"):
        read_csv(CsvLabels(path=tmp_path / "no.csv"), tmp_path / "no.csv")


def test_same_line_twice_is_one(table):
    assert len(table("file,findings\na,Mass|Pneumonia\na,pneumonia | mass\n").rows) == 1


def view(digest, *paths, **names):
    values = {"instance": "", "study_uid": "", "accession": "", "patient_id": ""} | names
    return Identity(digest=digest, paths=paths, **values)


def test_file_keys_match_the_path_and_the_name_only_if_it_is_unique(table):
    read = table("file,findings\na/1.dcm,Mass\n2.dcm,Mass\n3.dcm,Mass\nnowhere.dcm,Mass\n")
    views = [view("d1", "a/1.dcm"), view("d2", "a/2.dcm"), view("d3", "a/3.dcm"), view("d4", "b/3.dcm")]
    labels, unmatched = read.matched(views, lambda kind, value: value)
    assert set(labels) == {"d1", "d2"}
    assert unmatched == 2


@pytest.mark.parametrize(
    ("key", "kind", "attribute"),
    [
        ("sop_instance_uid", "instance", "instance"),
        ("study_instance_uid", "study-uid", "study_uid"),
        ("accession_number", "accession", "accession"),
        ("patient_id", "patient-id", "patient_id"),
    ],
)
def test_identifiers_match_by_their_pseudonyms(table, key, kind, attribute):
    read = table("file,findings\n77,Mass\n78,Mass\n", key=key)
    views = [view("d1", "1", **{attribute: f"{kind}:77"}), view("d2", "2", **{attribute: f"{kind}:77"}), view("d3", "3")]
    labels, unmatched = read.matched(views, lambda kind, value: f"{kind}:{value}")
    assert set(labels) == {"d1", "d2"}
    assert unmatched == 1
