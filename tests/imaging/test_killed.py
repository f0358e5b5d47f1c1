"""`silo ingest` killed (SIGKILL) at random points fifty times: the run that follows gives what an undisturbed one gives."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import silo_app
from silo_app.catalogue import Catalogue
from silo_app.config import load

KILLS = 50
FILES = 48


@pytest.fixture
def make_kit(tmp_path):
    """Return a new, empty silo over the one source; all of them have the same key, so that they can be compared."""

    def make(name):
        kit = tmp_path / name
        (kit / "local").mkdir(parents=True)
        labels = {"kind": "csv", "path": str(tmp_path / "labels.csv"), "key": "file", "key_column": "file"}
        config = {"name": "test", "sources": [{"path": str(tmp_path / "source")}], "labels": labels}
        (kit / "local" / "silo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        home = load(kit)
        home.root.mkdir(mode=0o700)
        home.key.write_bytes(bytes(range(32)))
        home.key.chmod(0o600)
        return home

    return make


@pytest.fixture
def source(tmp_path, make_dicom, make_picture):
    folder = tmp_path / "source"
    folder.mkdir()
    rows = ["file,findings"]
    for number in range(FILES):
        (folder / f"{number:02}.dcm").write_bytes(
            make_dicom(
                make_picture(24, 20, seed=number),
                PatientID=f"P{number // 3}",
                StudyInstanceUID=f"1.2.{number // 2}",
                SeriesInstanceUID=f"1.3.{number // 2}",
                SOPInstanceUID=f"1.4.{number if number % 16 else 0}",  # some are the same instance again
                Modality="CT" if number % 11 == 5 else "CR",
            )
        )
        rows.append(f"{number:02}.dcm,{'Effusion' if number % 4 else 'No Finding'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "notes.txt").write_text("no image")
    return folder


def started(home):
    return subprocess.Popen(
        [sys.executable, "-m", "silo_app.cli.main", "ingest", "--silo", home.kit, "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(silo_app.__file__).parent.parent)},
    )


def finished(home):
    """Run to the end; return the seconds that it took."""
    start = time.monotonic()
    assert started(home).wait(timeout=120) == 0
    return time.monotonic() - start


def content(home):
    """Everything that a silo holds, without the random case ids (numbered by their first view)."""
    with Catalogue.open(home.catalogue) as catalogue:
        cases = {}
        views = [
            (v.digest, cases.setdefault(v.case, len(cases)), v.patient, v.split, v.position, v.sex, v.age, dict(v.findings))
            for v in sorted(catalogue.views(), key=lambda view: view.digest)
        ]
        with catalogue.writing() as writer:
            files = writer.files(str(home.config.sources[0].path))
        counts, refusals = catalogue.counts(), catalogue.refusals()
    cache = {
        str(path.relative_to(home.cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.cache.rglob("*")
        if path.is_file()
    }
    return views, files, refusals, counts, cache


@pytest.mark.usefixtures("source")
def test_fifty_kills_at_random_points_change_nothing(make_kit):
    whole = make_kit("undisturbed")
    seconds = finished(whole)
    expected = content(whole)
    assert len(expected[0]) > FILES // 2
    assert len(expected[2]) > 4
    moments = random.Random(4)
    home, kills = make_kit("killed0"), 0
    for run in range(4 * KILLS):
        if kills == KILLS:
            break
        process = started(home)
        try:
            process.wait(timeout=moments.uniform(0.25, 1.1) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:  # it was faster: it must have got it right; the next kills hit a new silo
            assert process.returncode == 0
            assert content(home) == expected
            shutil.rmtree(home.kit)
            home = make_kit(f"killed{run + 1}")
    assert kills == KILLS
    finished(home)
    assert content(home) == expected
