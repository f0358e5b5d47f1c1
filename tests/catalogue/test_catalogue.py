"""The catalogue: what is written is read back, nothing is half written, damage is told from absence."""

import contextlib
import dataclasses
import os
import sqlite3

import pytest

from silo_app.cases import Finding, PatientKey, Sex, Split, ViewPosition
from silo_app.catalogue import Catalogue, FileRecord, Label, ViewKeys, ViewRecord
from silo_app.catalogue.migrations import LATEST
from silo_app.errors import CatalogueDamaged, NotReady


def record(digest, *, study="S1", patient="P1", split=Split.TRAIN, **facts):
    keys = ViewKeys(
        instance=f"I-{digest}",
        study=study,
        study_uid=f"U-{study}",
        accession="A",
        patient=PatientKey(patient),
        patient_id=f"ID-{patient}",
    )
    return ViewRecord(digest=digest, keys=keys, split=split, height=5, width=4, **facts)


def file(path, digest=None, reason=""):
    return FileRecord(source="/s", path=path, size=1, mtime_ns=2, recipe="r", digest=digest, reason=reason)


def add(catalogue, *views):
    with catalogue.writing() as writer:
        cases = []
        for view in views:
            cases.append(writer.add_view(view))
            writer.record_file(file(f"{view.digest}.dcm", view.digest))
    return cases


@pytest.fixture
def catalogue(tmp_path):
    with Catalogue.open(tmp_path / "silo" / "catalogue.db", create=True) as opened:
        yield opened


def test_views_come_back_ordered_by_digest_with_their_facts(catalogue):
    add(catalogue, record("b", sex=Sex.FEMALE, age=41, study_year=2020, device="ACME"), record("a", study="S2"))
    with catalogue.writing() as writer:
        writer.relabel({"b": [Label(finding=Finding.MASS, present=True, source="csv", term="tumour")]})
    first, second = catalogue.views()
    assert (first.digest, second.digest) == ("a", "b")
    assert (second.sex, second.age, second.study_year, second.device) == (Sex.FEMALE, 41, 2020, "ACME")
    assert (first.position, first.age, dict(first.findings)) == (ViewPosition.UNKNOWN, None, {})
    assert dict(second.findings) == {Finding.MASS: True}
    assert [(x.source, x.term) for x in catalogue.labels_of("b")] == [("csv", "tumour")]


def test_views_of_one_study_share_a_random_case(catalogue):
    one, two, other = add(catalogue, record("a"), record("b"), record("c", study="S2"))
    assert one == two != other
    assert len(one) == 32
    assert [view.digest for view in catalogue.views_of(one)] == ["a", "b"]
    assert catalogue.card(one) == catalogue.views()[0]
    assert catalogue.card("nothing") is None
    assert catalogue.patient_cases("P1") == sorted([one, other])
    assert catalogue.case_of_digest("c") == other
    assert catalogue.case_of_digest("d") is None


def test_split_is_the_patients_and_never_changes(catalogue):
    add(catalogue, record("a", split=Split.HELD_OUT), record("b", patient="P2", study="S2"))
    add(catalogue, record("c", study="S3", split=Split.TRAIN))
    assert [view.digest for view in catalogue.views(Split.HELD_OUT)] == ["a", "c"]
    assert [view.digest for view in catalogue.views(Split.TRAIN)] == ["b"]


def test_case_outlives_its_views(catalogue):
    (case,) = add(catalogue, record("a"))
    with catalogue.writing() as writer:
        writer.relabel({"a": [Label(finding=Finding.MASS, present=False, source="csv")]})
        writer.forget_files("/s", ["a.dcm"])
        assert writer.drop_orphans() == ["a"]
    assert catalogue.views() == []
    assert catalogue.card(case) is None
    assert catalogue.patient_cases("P1") == []
    assert add(catalogue, record("a")) == [case]
    assert catalogue.labels_of("a") == []


def test_view_with_a_second_file_is_no_orphan(catalogue):
    add(catalogue, record("a"))
    with catalogue.writing() as writer:
        writer.record_file(file("copy.dcm", "a"))
        writer.forget_files("/s", ["a.dcm"])
        assert writer.drop_orphans() == []
        assert not writer.drop_if_orphan("a")


def test_adding_twice_equals_once(catalogue):
    add(catalogue, record("a", age=3))
    before = catalogue.views()
    add(catalogue, record("a", age=3))
    assert catalogue.views() == before


def test_block_that_raises_writes_nothing(catalogue):
    with contextlib.suppress(RuntimeError), catalogue.writing() as writer:
        writer.add_view(record("a"))
        raise RuntimeError
    assert catalogue.views() == []


def test_counts(catalogue):
    add(
        catalogue,
        record("a", sex=Sex.MALE, age=44, position=ViewPosition.PA, device="X"),
        record("b", sex=Sex.MALE, age=47),
        record("c", study="S2", patient="P2", age=95, split=Split.HELD_OUT),
    )
    with catalogue.writing() as writer:
        writer.relabel(
            {
                "a": [Label(finding=Finding.MASS, present=True, source="csv")],
                "b": [Label(finding=Finding.MASS, present=False, source="csv")],
            }
        )
        writer.record_file(file("x", reason="not-dicom"))
        writer.record_file(file("y", reason="not-dicom"))
        writer.record_file(file("z", reason="truncated"))
    counts = catalogue.counts()
    assert (counts.patients, counts.cases, counts.views, counts.unlabelled) == (2, 2, 3, 1)
    assert counts.splits == {Split.HELD_OUT: 1, Split.TRAIN: 2}
    assert counts.positions == {ViewPosition.PA: 1, ViewPosition.UNKNOWN: 2}
    assert counts.sexes == {Sex.MALE: 2, Sex.UNKNOWN: 1}
    assert counts.age_bands == {"40-49": 2, "90+": 1}
    assert counts.devices == {"": 2, "X": 1}
    assert set(counts.findings) == {Finding.MASS}
    assert dataclasses.astuple(counts.findings[Finding.MASS]) == (1, 1, 1)
    assert counts.refused == {"not-dicom": 2, "truncated": 1}
    assert [(r.path, r.reason) for r in catalogue.refusals()] == [
        ("x", "not-dicom"),
        ("y", "not-dicom"),
        ("z", "truncated"),
    ]


def test_counts_of_an_empty_catalogue(catalogue):
    assert catalogue.counts().views == 0


def test_reader_sees_what_another_connection_wrote(catalogue):
    with Catalogue.open(catalogue.path) as reader:
        add(catalogue, record("a"))
        assert len(reader.views()) == 1


def test_files_are_private(catalogue):
    add(catalogue, record("a"))
    for path in catalogue.path.parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_missing_catalogue_says_what_to_do(tmp_path):
    with pytest.raises(NotReady, match="silo ingest"):
        Catalogue.open(tmp_path / "catalogue.db")
    assert not (tmp_path / "catalogue.db").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"This is no database. " * 100,
        lambda content: content[:5000],
        lambda content: content[:4096] + os.urandom(len(content) - 4096),
    ],
    ids=["foreign", "cut", "overwritten"],
)
def test_damaged_catalogue_is_told_apart(tmp_path, damage):
    path = tmp_path / "catalogue.db"
    with Catalogue.open(path, create=True) as opened:
        add(opened, *(record(f"{n}", study=f"S{n}") for n in range(50)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CatalogueDamaged) as caught:
        Catalogue.open(path)
    assert "backup" in caught.value.remedy
    assert caught.value.where == str(path)


def test_full_disk_is_no_damage_and_leaves_nothing_half_written(catalogue):
    """Who is told that the catalogue is damaged would move it away, and lose the case ids."""
    add(catalogue, record("0"))
    (pages,) = catalogue._connection.execute("PRAGMA page_count").fetchone()
    catalogue._connection.execute(f"PRAGMA max_page_count = {pages + 1}")  # SQLite's own error of a full disk
    with pytest.raises(NotReady, match="not damaged") as caught:
        add(catalogue, *(record(f"{n}", study=f"S{n}") for n in range(1, 500)))
    assert "Make room" in caught.value.remedy
    assert caught.value.where == str(catalogue.path)
    assert [view.digest for view in catalogue.views()] == ["0"]
    catalogue._connection.execute("PRAGMA max_page_count = 100000")
    add(catalogue, record("1", study="S1"))
    assert len(catalogue.views()) == 2


def test_an_error_of_ours_is_not_taken_for_one_of_the_disk(catalogue):
    with pytest.raises(sqlite3.IntegrityError), catalogue.writing() as writer:
        writer.record_file(file("x.dcm", "nowhere"))
    assert add(catalogue, record("0"))


def test_catalogue_of_a_newer_version_is_refused(catalogue):
    with sqlite3.connect(catalogue.path) as connection:
        connection.execute(f"PRAGMA user_version = {LATEST + 1}")
    connection.close()
    with pytest.raises(CatalogueDamaged, match="newer Siloscope"):
        Catalogue.open(catalogue.path)


def test_catalogue_is_bound_to_its_key(catalogue):
    with catalogue.writing() as writer:
        writer.bind_key("one")
        writer.bind_key("one")
    with pytest.raises(CatalogueDamaged, match="another silo key"), catalogue.writing() as writer:
        writer.bind_key("two")


def test_file_is_either_a_view_or_refused(catalogue):
    with pytest.raises(sqlite3.IntegrityError), catalogue.writing() as writer:
        writer.record_file(file("x"))
