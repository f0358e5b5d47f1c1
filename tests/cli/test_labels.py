"""`silo labels`: what a label file says, as a table and as JSON, before anything is labelled."""

import json

import pytest
from typer.testing import CliRunner

from silo_app.catalogue import Catalogue
from silo_app.cli.labels import app
from silo_app.errors import ConfigInvalid
from silo_app.imaging.ingest import ingest

NIH = "Image Index,Finding Labels\n1.png,Mass|Gout\n2.png,No Finding\n3.png,\n"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def nih(tmp_path):
    path = tmp_path / "entry.csv"
    path.write_text(NIH)
    return path


def test_check_as_json(nih):
    data = json.loads(run("check", nih, "--preset", "nih", "--format", "json").stdout)["data"]
    assert (data["file"], data["read_as"], data["rows"], data["keys"], data["without_findings"]) == (
        "entry.csv",
        "nih/1",
        3,
        3,
        1,
    )
    assert data["findings"]["Mass"] == {"present": 1, "absent": 1}
    assert data["findings"]["No Finding"] == {"present": 1, "absent": 0}
    assert data["unmapped"] == {"Gout": 1}
    assert data["issues"] == [
        {"line": 4, "column": "Finding Labels", "problem": "the cell is empty; the line says nothing", "fatal": False}
    ]


def test_check_as_table(nih):
    text = run("check", nih, "--preset", "nih").stdout
    assert "entry.csv read as nih/1: 3 rows, 3 keys" in text
    assert "Gout" in text
    assert "the line says nothing" in text


def test_a_file_that_cannot_be_used_has_a_status(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("study_instance_uid,findings\n1,Mass\n1,Hernia\n")
    done = run("check", path)
    assert done.exit_code == 2
    assert "WRONG: says otherwise than line 2" in done.stdout


def test_the_presets_are_listed():
    assert "MIMIC-CXR-JPG" in run("presets").stdout
    data = json.loads(run("presets", "--format", "json").stdout)["data"]["presets"]
    assert {"nih", "padchest", "rsna"} <= {one["preset"] for one in data}
    assert all(one["columns"] for one in data)


@pytest.mark.parametrize("arguments", [["check"], ["check", "x.csv", "--preset", "none"]])
def test_what_cannot_be_checked_is_told(arguments):
    assert isinstance(run(*arguments).exception, ConfigInvalid)


def test_a_file_can_be_checked_before_silo_yaml_names_any(make_silo, tmp_path):
    home, file = make_silo(), tmp_path / "new.csv"
    file.write_text("study_instance_uid,findings\n1.2.3,Mass\n")
    done = run("check", file, "--silo", home.kit, "--format", "json")
    assert done.exit_code == run("check", file).exit_code == 0
    assert json.loads(done.stdout)["data"]["rows"] == 1


def test_a_silo_says_how_many_of_its_images_are_named(tmp_path, make_dicom, make_silo, nih):
    home = make_silo(labels={"kind": "preset", "preset": "nih", "path": str(nih)})
    (tmp_path / "source" / "1.dcm").write_bytes(make_dicom())
    (tmp_path / "source" / "9.dcm").write_bytes(make_dicom(PatientID="P9"))
    ingest(home)
    data = json.loads(run("check", "--silo", home.kit, "--format", "json").stdout)["data"]
    assert data["silo"] == {"views": 2, "labelled": 1, "keys_without_image": 2}
    with Catalogue.open(home.catalogue) as catalogue:
        (labelled,) = [view for view in catalogue.views() if view.findings]
        origin = catalogue.labels_of(labelled.digest)[0].origin
    assert (origin.source, origin.preset) == ("entry.csv", "nih/1")
    assert origin.digest == data["sha256"]
