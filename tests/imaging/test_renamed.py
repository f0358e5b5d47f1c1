"""A silo whose files an earlier version named by their plain SHA-256 is brought to keyed names by its next ingest."""

import hashlib
import sqlite3

import pytest

from silo_app.cases import Finding
from silo_app.catalogue import Catalogue, SiloKey
from silo_app.catalogue.check import problems
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def old(make_silo, make_dicom, make_picture, source):
    """A silo as an earlier version left it: two files of one image, one without a UID, one with other content, one more."""
    first = make_dicom(make_picture(24, 20, seed=1), SOPInstanceUID="1.2.1", StudyInstanceUID="1.2")
    (source / "a.dcm").write_bytes(first)
    (source / "copy.dcm").write_bytes(first)
    (source / "none.dcm").write_bytes(
        make_dicom(make_picture(24, 20, seed=2), SOPInstanceUID=None, StudyInstanceUID=None, SeriesInstanceUID=None)
    )
    (source / "other.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=3), SOPInstanceUID="1.2.1"))
    (source / "z.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=4), SOPInstanceUID="1.2.4", StudyInstanceUID="1.3"))
    home = make_silo()
    ingest(home)
    as_before(home, source)
    return home


def as_before(home, source):
    """Name contents as versions before this one did, and have the files read by such a one."""
    contents, cache = SiloKey.load(home.key).contents, RadiographCache(home.cache)
    plain = {contents.name(file.read_bytes()): hashlib.sha256(file.read_bytes()).hexdigest() for file in source.iterdir()}
    with Catalogue.open(home.catalogue) as catalogue:
        digests = [view.digest for view in catalogue.views()]
        with catalogue.writing() as writer:
            for digest in digests:
                writer.rename(digest, plain[digest])
    for digest in digests:
        cache.path(plain[digest]).parent.mkdir(exist_ok=True)
        cache.path(digest).rename(cache.path(plain[digest]))
    connection = sqlite3.connect(home.catalogue)
    connection.execute("UPDATE files SET recipe = 'earlier'")
    connection.commit()
    connection.close()


def held(home):
    """What a catalogue says of each study, patient and label, but for the names of contents."""
    with Catalogue.open(home.catalogue) as catalogue:
        return sorted((v.case, v.patient, v.split, sorted(v.findings.items())) for v in catalogue.views())


def test_every_view_keeps_its_case_and_has_its_keyed_name(old, source):
    before, names = held(old), set(RadiographCache(old.cache).digests())
    report = ingest(old)
    assert (report.added, report.removed, report.unchanged, report.views) == (0, 0, 4, 3)
    assert [(refusal.path, refusal.reason) for refusal in report.refused] == [("other.dcm", "duplicate-instance")]
    assert held(old) == before
    contents = SiloKey.load(old.key).contents
    keyed = {contents.name((source / name).read_bytes()) for name in ("a.dcm", "none.dcm", "z.dcm")}
    with Catalogue.open(old.catalogue) as catalogue:
        assert {view.digest for view in catalogue.views()} == keyed
    assert set(RadiographCache(old.cache).digests()) == keyed
    assert not keyed & names
    assert problems(old.catalogue) == ()
    assert ingest(old).unchanged == 5


def test_labels_and_studies_stay_with_the_views(old, make_silo, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,findings\na.dcm,Nodule\n")
    home = make_silo(labels={"kind": "csv", "path": str(table), "key": "file", "key_column": "file"})
    ingest(home)
    before = held(home)
    assert [findings for *_, findings in before if findings] == [[(Finding.NODULE, True)]]
    as_before(home, tmp_path / "source")
    ingest(home)
    assert held(home) == before
    with Catalogue.open(home.catalogue) as catalogue:
        (labelled,) = [view for view in catalogue.views() if view.findings]
        assert catalogue.labels_of(labelled.digest)


def test_a_file_that_changed_meanwhile_replaces_its_view(old, source, make_dicom, make_picture):
    before = {row[0] for row in held(old)}
    (source / "z.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=9), SOPInstanceUID="1.2.9", StudyInstanceUID="1.9"))
    report = ingest(old)
    assert (report.added, report.removed, report.views) == (1, 1, 3)
    assert len({row[0] for row in held(old)} & before) == 2
    assert problems(old.catalogue) == ()


def test_a_file_that_moved_meanwhile_keeps_its_case(old, source):
    before = held(old)
    (source / "z.dcm").rename(source / "moved.dcm")
    assert ingest(old).views == 3
    assert held(old) == before
