"""Ingest through its front door: real decoding processes on small archives, disturbed in every way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from silo_app.cases import Finding, Split
from silo_app.catalogue import Catalogue, SiloKey, Vault
from silo_app.errors import CatalogueDamaged, LabelsInvalid, NotReady, SourceEmpty
from silo_app.imaging.cache import RadiographCache, as_cached
from silo_app.imaging.ingest import ingest
from silo_app.imaging.radiograph import read_radiograph


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture
def put(source, make_dicom, make_picture):
    """Write a DICOM file into the source; every file another picture."""
    count = 0

    def write(name, **attributes):
        nonlocal count
        count += 1
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_dicom(make_picture(24, 20, seed=count), **attributes))
        return path

    return write


def content(home):
    """Everything in a catalogue but the random case ids (numbered by first appearance) and file times."""
    with Catalogue.open(home.catalogue) as catalogue:
        cases = {}
        views = [
            (v.digest, cases.setdefault(v.case, len(cases)), v.patient, v.split, v.age, dict(v.findings))
            for v in catalogue.views()
        ]
        return views, catalogue.refusals(), catalogue.counts()


def test_archive_becomes_views_and_refusals(make_silo, put, source):
    first = put("a/1.dcm", StudyInstanceUID="1.1", PatientSex="F", PatientAge="040Y", ViewPosition="PA")
    put("a/2.dcm", StudyInstanceUID="1.1")
    put("b/ct.dcm", Modality="CT")
    (source / "notes.txt").write_text("not an image")
    (source / "cut.dcm").write_bytes(first.read_bytes()[:-50])
    home = make_silo()
    told = []
    report = ingest(home, progress=lambda done, total: told.append((done, total)))
    assert (report.files, report.added, report.unchanged, report.removed, report.views) == (5, 2, 0, 0, 2)
    assert [(r.path, r.reason) for r in report.refused] == [
        ("b/ct.dcm", "not-an-x-ray"),
        ("cut.dcm", "truncated"),
        ("notes.txt", "not-dicom"),
    ]
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    with Catalogue.open(home.catalogue) as catalogue:
        assert len({view.case for view in catalogue.views()}) == 1
        digest = SiloKey.load(home.key).contents.name(first.read_bytes())
        view = next(view for view in catalogue.views() if view.digest == digest)
        assert (view.sex, view.age, view.position) == ("F", 40, "PA")
    cached = RadiographCache(home.cache).read(digest)
    np.testing.assert_array_equal(cached, as_cached(read_radiograph(first)))


def test_ingesting_twice_equals_once(make_silo, put, source):
    put("1.dcm")
    put("2.dcm", PatientID="P2")
    (source / "x.txt").write_text("x")
    home = make_silo()
    ingest(home)
    before = content(home)
    report = ingest(home)
    assert (report.added, report.unchanged, len(report.refused)) == (0, 3, 1)
    assert content(home) == before


def test_touched_moved_and_copied_files_are_the_same_views(make_silo, put, source):
    one, two = put("1.dcm"), put("2.dcm")
    home = make_silo()
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        before = catalogue.views()
    os.utime(one, ns=(1, 1))
    two.rename(source / "moved.dcm")
    (source / "copy.dcm").write_bytes(one.read_bytes())
    report = ingest(home)
    assert (report.views, len(report.refused)) == (2, 0)
    with Catalogue.open(home.catalogue) as catalogue:
        assert catalogue.views() == before


def test_what_leaves_the_source_leaves_catalogue_and_cache(make_silo, put):
    put("1.dcm")
    gone = put("2.dcm", StudyInstanceUID="1.2.3")
    home = make_silo()
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        case = catalogue.case_of_digest(SiloKey.load(home.key).contents.name(gone.read_bytes()))
    kept = gone.read_bytes()
    gone.unlink()
    report = ingest(home)
    assert (report.removed, report.views) == (1, 1)
    assert len(list(RadiographCache(home.cache).digests())) == 1
    gone.write_bytes(kept)  # it comes back under its old case id
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        assert case in {view.case for view in catalogue.views()}


def test_replaced_file_replaces_its_view(make_silo, put):
    put("1.dcm", SOPInstanceUID="1.2.3", PatientAge="010Y")
    home = make_silo()
    ingest(home)
    put("1.dcm", SOPInstanceUID="1.2.3", PatientAge="011Y")
    report = ingest(home)
    assert (report.added, report.removed, report.views, report.refused) == (1, 1, 1, ())
    with Catalogue.open(home.catalogue) as catalogue:
        assert [view.age for view in catalogue.views()] == [11]


def test_second_file_of_an_instance_is_refused_until_the_first_is_gone(make_silo, put):
    first = put("1.dcm", SOPInstanceUID="1.2.3")
    put("2.dcm", SOPInstanceUID="1.2.3")
    home = make_silo()
    assert [(r.path, r.reason) for r in ingest(home).refused] == [("2.dcm", "duplicate-instance")]
    first.unlink()
    report = ingest(home)
    assert (report.views, report.refused) == (1, ())


@pytest.mark.parametrize("first", ["source", "other"])
@pytest.mark.parametrize("how", ["gone", "changed", "gone before a crash"])
def test_an_image_that_one_source_gives_up_is_taken_from_another(make_silo, put, source, tmp_path, monkeypatch, first, how):
    """An archive is moved: two sources hold the same images for a while, in other files."""
    holder = put("1.dcm", SOPInstanceUID="1.2.3")
    put("2.dcm")
    (tmp_path / "other").mkdir()
    put("3.dcm", SOPInstanceUID="1.2.3").rename(tmp_path / "other" / "3.dcm")
    home = make_silo()
    assert ingest(home, workers=1).views == 2
    folders = ["source", "other"] if first == "source" else ["other", "source"]
    home = make_silo(sources=[{"path": str(tmp_path / name)} for name in folders])
    assert [refusal.reason for refusal in ingest(home, workers=1).refused] == ["duplicate-instance"]
    assert ingest(home, workers=1).unchanged == 3
    if how == "changed":
        put("1.dcm", SOPInstanceUID="1.2.4")
    else:
        holder.unlink()
    if how == "gone before a crash":
        with monkeypatch.context() as patch:
            patch.setattr("silo_app.imaging.ingest.decode_all", lambda *_, **__: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                ingest(home, workers=1)
    report = ingest(home, workers=1)
    assert (report.views, report.refused) == (3 if how == "changed" else 2, ())


def test_a_source_that_was_moved_is_one_source(make_silo, put, source, tmp_path):
    """Another machine, another path in silo.yaml: what leaves or is corrected there is not held by what was."""
    put("1.dcm", SOPInstanceUID="1.1", StudyInstanceUID="1")
    put("2.dcm", SOPInstanceUID="1.2", StudyInstanceUID="2")
    put("3.dcm", SOPInstanceUID="1.3", StudyInstanceUID="3")
    (source / "notes.txt").write_text("no image")
    ingest(make_silo(), workers=1)
    moved = source.rename(tmp_path / "moved")
    put("3.dcm", SOPInstanceUID="1.3", StudyInstanceUID="3", PatientAge="011Y").rename(moved / "3.dcm")  # corrected
    source.rmdir()
    home = make_silo(sources=[{"path": str(moved)}])
    source.rmdir()
    report = ingest(home, workers=1)
    assert (report.views, report.removed, [one.reason for one in report.refused]) == (3, 1, ["not-dicom"])
    with Catalogue.open(home.catalogue) as catalogue:
        assert catalogue.counts().cases == 3
        assert [view.age for view in catalogue.views() if view.age] == [11]
        assert len(catalogue.refusals()) == 1
    (moved / "1.dcm").unlink()
    assert (ingest(home, workers=1).removed, ingest(home, workers=1).views) == (1, 2)


@pytest.mark.parametrize("there", ["on the disk", "in silo.yaml"])
def test_a_source_that_may_come_back_keeps_what_it_has(make_silo, put, source, tmp_path, there):
    put("1.dcm", SOPInstanceUID="1.1")
    home = make_silo()
    ingest(home, workers=1)
    shutil.copytree(source, tmp_path / "copy")
    named = [{"path": str(tmp_path / "copy")}] + [{"path": str(source)}] * (there == "in silo.yaml")
    home = make_silo(sources=named)
    if there == "in silo.yaml":
        source.rename(tmp_path / "unmounted")
    ingest(home, workers=1)
    (tmp_path / "copy" / "1.dcm").unlink()
    (tmp_path / "copy" / "notes.txt").write_text("so that it is not empty")
    assert ingest(home, workers=1).views == 1


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_lost_radiograph_is_decoded_again(make_silo, put, how):
    put("1.dcm")
    home = make_silo()
    ingest(home)
    cache = RadiographCache(home.cache)
    (digest,) = cache.digests()
    if how == "missing":
        cache.discard(digest)
    else:
        cache.path(digest).write_bytes(b"")  # what a power cut leaves of a file that was not synced
    ingest(home)
    assert cache.read(digest).shape == (24, 20)


def test_patients_are_told_apart_but_not_guessed(make_silo, put):
    put("1.dcm", PatientID="P", IssuerOfPatientID="A", StudyInstanceUID="1.1")
    put("2.dcm", PatientID="P", IssuerOfPatientID="A", StudyInstanceUID="1.2")
    put("3.dcm", PatientID="P", IssuerOfPatientID="B", StudyInstanceUID="1.3")
    put("4.dcm", PatientID=None, StudyInstanceUID="1.4")
    put("5.dcm", PatientID="", StudyInstanceUID="1.4")
    put("6.dcm", PatientID=None, StudyInstanceUID="1.5")
    put("7.dcm", PatientID="Q", StudyInstanceUID="1.1")  # the same study UID for another patient
    home = make_silo()
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        counts = catalogue.counts()
    assert (counts.patients, counts.cases, counts.views) == (5, 6, 7)


def test_split_is_by_patient_and_survives_another_share(make_silo, put):
    for n in range(12):
        put(f"{n}.dcm", PatientID=f"P{n // 2}")
    home = make_silo(held_out_share=0.5)
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        before = {view.digest: view.split for view in catalogue.views()}
        by_patient = {(view.patient, view.split) for view in catalogue.views()}
    assert len(by_patient) == 6
    put("new.dcm", PatientID="P0")
    ingest(make_silo(held_out_share=0.0))
    with Catalogue.open(home.catalogue) as catalogue:
        after = {view.digest: view.split for view in catalogue.views()}
    assert before.items() <= after.items()
    assert set(before.values()) <= set(Split)


def test_split_is_the_same_whoever_issued_a_patient_id(make_silo, put):
    """An export without issuers beside a PACS with them: nobody is both trained on and held out."""
    for number in range(8):
        for issuer in ("", "A", "B"):
            put(f"{number}{issuer}.dcm", PatientID=f"P{number}", IssuerOfPatientID=issuer)
    home = make_silo(held_out_share=0.5)
    ingest(home)
    with Catalogue.open(home.catalogue, vault=Vault(SiloKey.load(home.key))) as catalogue:
        splits = {(catalogue.identity(view.case).patient_id, view.split) for view in catalogue.views()}
        assert catalogue.counts().patients == 24
    assert len(splits) == 8


def test_a_known_patient_id_of_another_issuer_has_the_split_that_was_drawn_first(make_silo, put):
    """A silo whose split was drawn by another share, or by an earlier version, keeps it for whoever has the Patient ID."""
    for number in range(4):
        put(f"{number}.dcm", PatientID=f"P{number}", IssuerOfPatientID="A")
    ingest(make_silo(held_out_share=0.0))
    for number in range(4):
        put(f"{number}B.dcm", PatientID=f"P{number}", IssuerOfPatientID="B")
    home = make_silo(held_out_share=0.9)
    ingest(home)
    with Catalogue.open(home.catalogue) as catalogue:
        assert catalogue.counts().splits == {Split.TRAIN: 8}


def test_csv_labels_follow_the_file(make_silo, put, tmp_path):
    put("1.dcm", StudyInstanceUID="1.1")
    put("2.dcm", StudyInstanceUID="1.2")
    put("3.dcm", StudyInstanceUID="1.3")
    table = tmp_path / "labels.csv"
    table.write_text("uid,findings\n1.1,bacteria\n1.2,No Finding\n1.9,Gout\n")
    home = make_silo(
        labels={
            "kind": "csv",
            "path": str(table),
            "key_column": "uid",
            "mapping": {"bacteria": "Pneumonia"},
            "scope": ["Pneumonia"],
        }
    )
    report = ingest(home)
    assert (report.unlabelled, report.unmatched, dict(report.unmapped)) == (1, 1, {"Gout": 1})
    with Catalogue.open(home.catalogue) as catalogue:
        found = sorted(tuple(sorted(view.findings.items())) for view in catalogue.views())
    assert found == [
        (),
        ((Finding.NO_FINDING, True), (Finding.PNEUMONIA, False)),
        ((Finding.PNEUMONIA, True),),
    ]
    table.write_text("uid,findings\n1.3,Mass\n")
    assert ingest(home).unlabelled == 2
    table.write_text("uid,findings\n9.9,Mass\n")
    with pytest.raises(LabelsInvalid, match="none of the 1 keys of the file"):
        ingest(home)
    assert ingest(make_silo()).unlabelled == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [("file", "a/1.dcm"), ("sop_instance_uid", "1.7"), ("accession_number", "ACC"), ("patient_id", "P1")],
)
def test_csv_keys_of_every_kind(make_silo, put, tmp_path, key, value):
    put("a/1.dcm", SOPInstanceUID="1.7", AccessionNumber="ACC", PatientID="P1", IssuerOfPatientID="H")
    (tmp_path / "labels.csv").write_text(f"k,findings\n{value},Mass\n")
    home = make_silo(labels={"kind": "csv", "path": str(tmp_path / "labels.csv"), "key": key, "key_column": "k"})
    assert ingest(home).unlabelled == 0


def test_labels_in_an_attribute(make_silo, put):
    put("1.dcm", ImageComments="Mass;Gout")
    put("2.dcm")
    labels = {"kind": "tag", "keyword": "ImageComments", "separator": ";", "scope": ["Pneumonia"]}
    report = ingest(make_silo(labels=labels))
    assert (report.unlabelled, dict(report.unmapped)) == (1, {"Gout": 1})
    home = make_silo(labels=labels | {"mapping": {"gout": "Pneumonia"}})
    ingest(home)  # another mapping reads again
    with Catalogue.open(home.catalogue) as catalogue:
        assert {f for view in catalogue.views() for f, present in view.findings.items() if present} == {
            Finding.MASS,
            Finding.PNEUMONIA,
        }


def test_wrong_labels_stop_before_anything_is_read(make_silo, put, tmp_path):
    put("1.dcm")
    (tmp_path / "labels.csv").write_text("a,b\n1,2\n")
    home = make_silo(labels={"kind": "csv", "path": str(tmp_path / "labels.csv")})
    with pytest.raises(LabelsInvalid, match="the columns are: a, b"):
        ingest(home)
    assert not home.catalogue.exists()


def test_empty_source_says_what_to_do(make_silo):
    with pytest.raises(SourceEmpty, match="no file"):
        ingest(make_silo())
    with pytest.raises(SourceEmpty, match="no source"):
        ingest(make_silo(sources=[]))


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        ({"path": "nowhere"}, "there is no such folder"),
        ({"path": "empty"}, "the folder holds no file"),
        ({"kind": "dicomweb", "name": "pacs", "url": "https://127.0.0.1:9/dicom-web", "password_file": "none"}, ""),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_source_that_cannot_be_read_costs_only_what_it_has(make_silo, put, source, tmp_path, other, problem, first):
    (tmp_path / "kit" / "empty").mkdir(parents=True)
    put("1.dcm")
    sources = [other, {"path": str(source)}]
    home = make_silo(sources=sources if first else sources[::-1])
    report = ingest(home, workers=1)
    assert (report.added, report.views) == (1, 1)
    ((name, why),) = report.unreachable.items()
    assert name in {"pacs", str(tmp_path / "kit" / "nowhere"), str(tmp_path / "kit" / "empty")}
    assert problem in why
    again = ingest(home, workers=1)
    assert (again.unchanged, again.removed) == (1, 0)
    assert list(again.unreachable) == [name]


def test_a_full_disk_at_the_spool_costs_the_source_and_loses_nothing(make_silo, put, source, tmp_path, monkeypatch):
    """Members of a zip file go through the spool; the other folder's files are read where they lie."""
    import zipfile

    from silo_app.imaging.sources import folder

    path = put("1.dcm")
    zips = tmp_path / "zips"
    zips.mkdir()
    with zipfile.ZipFile(zips / "many.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", put(f"{number + 2}.dcm").read_bytes())
            (source / f"{number + 2}.dcm").unlink()
    home = make_silo(sources=[{"path": str(zips)}, {"path": str(source)}])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(folder, "extract", full)
        report = ingest(home, workers=1)
    assert path.exists()
    assert (report.added, report.views) == (1, 1)
    assert "No space left on device" in report.unreachable[str(zips)]
    assert ingest(home, workers=1).views == 4


def test_decoder_that_dies_or_hangs_costs_one_file(make_silo, put, source, monkeypatch):
    """The decoder is replaced by one that aborts, hangs, or floods its output for files of certain names."""
    for name in ("1.dcm", "abort.dcm", "hang.dcm", "noisy.dcm", "5.dcm"):
        put(name)
    hook = source.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, time\n"
        "import silo_app.imaging.content as c\n"
        "read = c.read_bytes\n"
        "def disturbed(path):\n"
        "    if path.name == 'abort.dcm': os.abort()\n"
        "    if path.name == 'hang.dcm': time.sleep(100)\n"
        "    if path.name == 'noisy.dcm': os.write(1, b'x' * 100000)\n"
        "    return read(path)\n"
        "c.read_bytes = disturbed\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hook), str(Path(__file__).parents[2])]))
    monkeypatch.setattr("silo_app.imaging.ingest.SECONDS_PER_FILE", 3)
    home = make_silo()
    report = ingest(home, workers=2)
    assert report.added == 3
    assert [(r.path, r.reason) for r in report.refused] == [
        ("abort.dcm", "decode-failed"),
        ("hang.dcm", "decode-failed"),
    ]
    monkeypatch.delenv("PYTHONPATH")
    assert ingest(home).added == 2  # a crash may be over: it is tried again


def test_decoder_that_does_not_start_is_said_so(make_silo, put, monkeypatch):
    put("1.dcm")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NotReady, match="does not start"):
        ingest(make_silo())


def test_second_ingest_at_the_same_time_is_refused(make_silo, put):
    import fcntl

    put("1.dcm")
    home = make_silo()
    home.root.mkdir()
    with (home.root / "ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NotReady, match="another ingest"):
            ingest(home)


def test_catalogue_of_another_key_is_refused(make_silo, put):
    put("1.dcm")
    home = make_silo()
    ingest(home)
    home.key.unlink()
    with pytest.raises(CatalogueDamaged, match="another silo key"):
        ingest(home)


def test_no_identifier_is_stored(make_silo, put, source):
    planted = {
        "PatientID": "SECRETID",
        "PatientName": "SECRETNAME^X",
        "AccessionNumber": "SECRETACC",
        "StudyInstanceUID": "1.2.840.99999.1",
        "SeriesInstanceUID": "1.2.840.99999.2",
        "SOPInstanceUID": "1.2.840.99999.3",
        "PatientBirthDate": "19551231",
        "InstitutionName": "SECRETPLACE",
        "StationName": "SECRETROOM",
        "DeviceSerialNumber": "SECRETSN",
        "StudyDate": "20200317",
    }
    put("1.dcm", **planted)
    put("2.dcm", **planted, Rows=1)
    home = make_silo()
    ingest(home)
    for path in home.root.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert not any(word.encode() in found for word in planted.values()), path
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("moment", [0.3, 0.8])
def test_killed_ingest_is_finished_by_the_next(make_silo, put, source, tmp_path, moment):
    """SIGKILL in mid-run, by the share of files that were decoded; then one more run equals an undisturbed one."""
    for n in range(32):
        put(f"{n:02d}.dcm", PatientID=f"P{n % 7}", StudyInstanceUID=f"1.{n % 11}", SOPInstanceUID=f"1.2.{n % 30}")
    (source / "x.txt").write_text("x")
    home = make_silo(home=str(tmp_path / "one"))
    script = (
        "import sys, time, silo_app.imaging.ingest as i\n"
        "from pathlib import Path\nfrom silo_app.config import load\n"
        "i._FIRST_BATCH = i._BATCH = 3\n"  # more transactions to be killed between
        # it says that the moment has come, and waits there to be killed, however slow the machine is
        "def wait(done, total):\n"
        "    if done >= float(sys.argv[2]) * total:\n"
        "        print(done, flush=True)\n"
        "        time.sleep(600)\n"
        "i.ingest(load(Path(sys.argv[1])), workers=1, progress=wait)\n"
    )
    command = [sys.executable, "-c", script, str(home.kit), str(moment)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert moment * 33 <= int(process.stdout.readline()) < 33
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Catalogue.open(home.catalogue) as catalogue:
        assert 0 < catalogue.counts().views < 30
    key = home.key.read_bytes()
    report = ingest(home)
    assert report.added < 30
    other = make_silo(home=str(tmp_path / "two"))
    other.root.mkdir()
    other.key.write_bytes(key)
    other.key.chmod(0o600)
    ingest(other)
    assert content(home) == content(other)
    assert sorted(RadiographCache(home.cache).digests()) == sorted(RadiographCache(other.cache).digests())
    assert not list(home.cache.rglob("*.part"))


def test_workers_end_with_an_ingest_that_is_killed(make_silo, put):
    """A worker whose parent is gone reads the end of its requests and leaves."""
    from silo_app.imaging.pool import _start

    worker = _start()
    assert worker.stdout.readline() == b"ready\n"
    worker.stdin.close()
    assert worker.wait(timeout=10) == 0
    worker.stdout.close()


def test_report_counts_every_file_once(make_silo, put, source):
    for n in range(3):
        put(f"{n}.dcm")
    (source / "x.txt").write_text("x")
    home = make_silo()
    start = time.monotonic()
    report = ingest(home)
    assert report.files == report.added + len(report.refused)
    assert 0 < report.seconds <= time.monotonic() - start
    assert Counter(r.reason for r in report.refused) == {"not-dicom": 1}
