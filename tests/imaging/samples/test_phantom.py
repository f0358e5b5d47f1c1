import csv
import hashlib
from collections import Counter

import pydicom
import pytest

from silo_app.errors import SampleInvalid
from silo_app.imaging.samples import phantom
from silo_app.imaging.samples.archive import read_archives
from silo_app.imaging.samples.findings import SCOPE
from silo_app.imaging.samples.phantom import make_phantoms


def digests(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "out"
    return out, make_phantoms(out, hospitals=3, studies=(10, 12, 8), seed=11)


def test_counts_are_what_was_asked_for(made):
    out, archives = made
    assert [one.name for one in archives] == ["hospital-a", "hospital-b", "hospital-c"]
    assert [one.studies for one in archives] == [10, 12, 8]
    for one in archives:
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in one.dicom.rglob("*.dcm")]
        assert one.synthetic
        assert one.images == len(headers)
        assert one.studies == len({ds.StudyInstanceUID for ds in headers})
        assert one.patients == len({ds.PatientID for ds in headers}) < one.studies
    assert read_archives(out) == archives


def test_labels_name_every_study_within_the_scope(made):
    for one in made[1]:
        with (one.path / one.labels.path).open(encoding="utf-8", newline="") as lines:
            rows = {row[one.labels.key_column]: row[one.labels.findings_column] for row in csv.DictReader(lines)}
        files = one.dicom.rglob("*.dcm")
        assert set(rows) == {pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID for file in files}
        assert one.labels.scope == SCOPE
        assert {name for cell in rows.values() for name in cell.split("|")} <= {*SCOPE, "No Finding"}


def test_files_are_as_varied_as_real_ones(made):
    headers = [pydicom.dcmread(file) for one in made[1] for file in one.dicom.rglob("*.dcm")]
    assert all(ds.pixel_array.shape == (ds.Rows, ds.Columns) for ds in headers)
    assert {ds.PhotometricInterpretation for ds in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert {ds.Modality for ds in headers} == {"DX", "CR"}
    assert {ds.ViewPosition for ds in headers} == {"PA", "AP"}
    assert len({ds.file_meta.TransferSyntaxUID for ds in headers}) >= 4
    assert len({ds.BitsStored for ds in headers}) >= 3
    assert len(Counter((ds.Rows, ds.Columns) for ds in headers)) == 3
    assert any("VOILUTSequence" in ds for ds in headers)
    assert any("WindowCenter" in ds for ds in headers)
    assert any("RescaleSlope" not in ds for ds in headers)
    assert any("PixelSpacing" in ds for ds in headers)
    assert any("ImagerPixelSpacing" in ds for ds in headers)


def test_a_seed_makes_the_same_bytes_in_any_number_of_processes(made, tmp_path):
    make_phantoms(tmp_path / "out", hospitals=3, studies=(10, 12, 8), seed=11, workers=2)
    assert digests(tmp_path / "out") == digests(made[0])


def test_another_seed_makes_other_bytes(tmp_path):
    one, other = (digests(make_phantoms(tmp_path / str(s), hospitals=1, studies=1, seed=s)[0].dicom) for s in (1, 2))
    assert not set(one.values()) & set(other.values())


def test_the_same_again_changes_nothing(made, monkeypatch):
    out, archives = made
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    monkeypatch.setattr(phantom, "make_patient", None)  # would fail if it were called
    assert make_phantoms(out, hospitals=3, studies=(10, 12, 8), seed=11) == archives
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_what_is_there_is_never_overwritten(made, tmp_path):
    with pytest.raises(SampleInvalid, match="something else here already"):
        make_phantoms(made[0], hospitals=3, studies=(10, 12, 9), seed=11)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SampleInvalid, match="something else here already"):
        make_phantoms(tmp_path, hospitals=1, studies=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_archive_that_lost_files_is_not_called_finished(tmp_path):
    archive = make_phantoms(tmp_path / "out", hospitals=1, studies=1)[0]
    next(archive.dicom.rglob("*.dcm")).unlink()
    with pytest.raises(SampleInvalid, match="files of it are missing"):
        make_phantoms(tmp_path / "out", hospitals=1, studies=1)


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupt(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_phantoms(tmp_path / "out", hospitals=1, studies=4, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    make_phantoms(tmp_path / "out", hospitals=2, studies=2, progress=lambda *step: seen.append(step))
    assert seen[-1][:2] == (4, 4)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


@pytest.mark.parametrize(
    ("hospitals", "studies", "problem"),
    [
        (0, 10, "0 hospitals"),
        (3, (10, 20), "3 hospitals were asked for, with 2 numbers"),
        (2, (10, 0), "cannot have 0 studies"),
        (1, 10**7, "cannot have 10000000 studies"),
    ],
)
def test_impossible_orders_are_refused(tmp_path, hospitals, studies, problem):
    with pytest.raises(SampleInvalid, match=problem):
        make_phantoms(tmp_path / "out", hospitals=hospitals, studies=studies)
    assert not (tmp_path / "out").exists()
