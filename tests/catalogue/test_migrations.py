"""Catalogues of every earlier version are brought to this one, with everything that they hold."""

import sqlite3
from pathlib import Path

import pytest

from silo_app.cases import Finding, PatientKey, Sex, Split, ViewPosition
from silo_app.catalogue import Catalogue, Label, Origin, ViewKeys
from silo_app.catalogue.check import problems
from silo_app.catalogue.migrations import LATEST, MIGRATIONS
from silo_app.errors import CatalogueDamaged

VERSIONS = Path(__file__).parent / "versions"
"""Catalogues as SQL, each written by the Siloscope of its version: three views of two studies, one refused file."""
FINGERPRINTS = ["f92a18133fb6c32a", "6cd67228624abba8", "d8a37a8ab094d485", "d5b79472d75243e3", "51bcb3399d6f0bef"]
FINGERPRINTS += ["1530fb016e83c21a", "4cc9410e6b810077"]


@pytest.fixture(params=sorted(VERSIONS.glob("*.sql"), key=lambda file: int(file.stem)), ids=lambda file: file.stem)
def old(request, tmp_path):
    path = tmp_path / "catalogue.db"
    connection = sqlite3.connect(path)
    connection.executescript(request.param.read_text())
    assert connection.execute("PRAGMA user_version").fetchone() == (int(request.param.stem),)
    connection.close()
    return path


def test_steps_are_numbered_and_have_not_changed():
    """A changed step would leave the catalogues that have gone through it as they are: append another one instead."""
    assert [step.number for step in MIGRATIONS] == list(range(1, LATEST + 1))
    assert [step.fingerprint for step in MIGRATIONS] == FINGERPRINTS
    assert all(step.why for step in MIGRATIONS)


def test_an_old_catalogue_keeps_everything(old):
    with Catalogue.open(old) as catalogue:
        first, second, third = catalogue.views()
        assert (first.position, first.sex, first.age, first.device) == (ViewPosition.PA, Sex.FEMALE, 41, "ACME X")
        assert [view.split for view in (first, second, third)] == [Split.TRAIN, Split.TRAIN, Split.HELD_OUT]
        assert first.case == second.case != third.case
        assert dict(first.findings) == {Finding.MASS: True, Finding.NODULE: False}
        assert [label.term for label in catalogue.labels_of(first.digest)] == ["tumour", ""]
        assert [refusal.path for refusal in catalogue.refusals()] == ["x.txt"]
    assert problems(old) == ()


def test_an_old_catalogue_is_of_this_version_afterwards_and_takes_new_labels(old):
    with Catalogue.open(old) as catalogue:
        digest = catalogue.views()[1].digest
        origin = Origin(source="new.csv", preset="nih/1", digest="d", since="2026-11-23T17:00:00+00:00")
        with catalogue.writing() as writer:
            writer.relabel({digest: [Label(finding=Finding.HERNIA, present=True, source="new.csv:x", origin=origin)]})
        (label,) = catalogue.labels_of(digest)
        assert label.origin == origin
        assert label.origin.since == origin.since
    connection = sqlite3.connect(old)
    assert connection.execute("PRAGMA user_version").fetchone() == (LATEST,)
    connection.close()


def test_what_was_taken_out_before_step_6_is_out_by_its_names_too(tmp_path):
    connection = sqlite3.connect(tmp_path / "catalogue.db")
    for step in MIGRATIONS[:5]:
        connection.executescript(step.script)
    connection.executescript("""
        INSERT INTO patients VALUES ('p1', 'id1', 'train'), ('p2', 'id2', 'train'), ('p3', 'id3', 'train');
        INSERT INTO studies VALUES ('c1', 's1', 'u1', '', 'p1'), ('c2', 's2', 'u2', '', 'p2'), ('c3', 's3', 'u3', '', 'p3');
        INSERT INTO recalls VALUES ('study', 's1', 'then'), ('patient', 'p2', 'then');
        PRAGMA user_version = 5;
    """)
    connection.close()

    def keys(study_uid, patient_id):
        return ViewKeys(
            instance="i", study="s", study_uid=study_uid, accession="", patient=PatientKey("p"), patient_id=patient_id
        )

    with Catalogue.open(tmp_path / "catalogue.db") as catalogue, catalogue.writing() as writer:
        out = [keys("u1", "new"), keys("u2", "new"), keys("new", "id2")]
        assert [writer.is_recalled(one) for one in [*out, keys("u3", "id3"), keys("", "")]] == [True] * 3 + [False] * 2


def test_a_step_that_fails_changes_nothing(old, monkeypatch):
    connection = sqlite3.connect(old)
    before = list(connection.iterdump())
    connection.execute("CREATE TABLE series (something TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(CatalogueDamaged, match="series"):
        Catalogue.open(old)
    connection = sqlite3.connect(old)
    connection.execute("DROP TABLE series")
    connection.commit()
    assert list(connection.iterdump()) == before
    connection.close()


def test_the_check_names_what_is_wrong(old):
    Catalogue.open(old).close()
    connection = sqlite3.connect(old)
    connection.execute("DELETE FROM files WHERE path = 'c.dcm'")
    connection.execute("UPDATE patients SET split = 'both' WHERE key = 'p2'")
    connection.execute("UPDATE views SET case_id = 'nowhere' WHERE digest LIKE 'b%'")
    connection.commit()
    connection.close()
    assert problems(old) == (
        "1 rows refer to something that is not there",
        "1 views that no file holds",
        "1 patients without a known split",
    )
