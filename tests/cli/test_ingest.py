"""`silo ingest`: data on stdout, people on stderr, and an exit status that scripts can trust."""

import json

import pytest
import typer
import yaml
from typer.testing import CliRunner

from silo_app.cli.ingest import ingest
from silo_app.errors import LabelsInvalid, NotReady, SourceEmpty


@pytest.fixture
def silo():
    app = typer.Typer()
    app.command()(ingest)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def archive(tmp_path, make_dicom, make_silo):
    home = make_silo()
    source = tmp_path / "source"
    (source / "1.dcm").write_bytes(make_dicom(StudyInstanceUID="1.1"))
    (source / "notes.txt").write_text("notes")
    return home.kit, source


def test_refused_files_are_listed_and_the_rest_is_ingested(silo, archive):
    kit, source = archive
    result = silo("--silo", kit)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["not-dicom", str(source / "notes.txt")]]
    assert "1 views added" in " ".join(result.stderr.split())


def test_a_file_of_any_name_is_one_line_that_acts_on_no_other(silo, archive):
    kit, source = archive
    (source / "notes.txt").rename(source / "a\x1b[1A\nrecalled\tb\u202e.txt")
    assert silo("--silo", kit).stdout.split("\t")[:2] == ["not-dicom", f"{source}/a\ufffd[1A\ufffdrecalled\ufffdb\ufffd.txt"]
    listed = json.loads(silo("--silo", kit, "--format", "json").stdout)["data"]["refused"]
    assert listed[0]["path"] == "a\x1b[1A\nrecalled\tb\u202e.txt"


def test_json_is_one_envelope(silo, archive):
    kit, _ = archive
    result = silo("--silo", kit, "--format", "json")
    envelope = json.loads(result.stdout)
    assert (envelope["schema_version"], envelope["status"]) == (1, "ok")
    assert envelope["data"]["added"] == 1
    assert envelope["data"]["refused"][0]["reason"] == "not-dicom"


def test_nothing_usable_is_exit_status_two(silo, archive):
    kit, source = archive
    (source / "1.dcm").unlink()
    result = silo("--silo", kit)
    assert result.exit_code == 2
    assert "not-dicom" in result.stdout


def test_options_go_before_the_configuration(silo, archive, tmp_path, make_dicom):
    kit, _ = archive
    other = tmp_path / "other"
    other.mkdir()
    (other / "2.dcm").write_bytes(make_dicom(StudyInstanceUID="1.2"))
    labels = tmp_path / "labels.csv"
    labels.write_text("study_instance_uid,findings\n1.2,Mass|Gout\n1.9,Mass\n")
    result = silo("--silo", kit, "--source", other, "--labels", labels)
    assert result.exit_code == 0
    shown = " ".join(result.stderr.split())
    assert "0 of them without a label" in shown
    assert "Gout (1)" in shown
    assert "1 keys of the label file" in shown


def test_labels_that_never_say_absent_are_warned_of(silo, archive, tmp_path):
    """`labels: {kind: none}`, which init and provision write, has no scope for the file of `--labels`."""
    kit, _ = archive
    labels = tmp_path / "labels.csv"
    labels.write_text("study_instance_uid,findings\n1.1,Mass\n")
    warned = silo("--silo", kit, "--labels", labels)
    assert warned.exit_code == 0
    assert "No finding is absent in any image" in " ".join(warned.stderr.split())
    assert "`labels.scope` of silo.yaml" in " ".join(warned.stderr.split())
    file = kit / "local" / "silo.yaml"
    said = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(said | {"labels": {"kind": "csv", "path": str(labels), "scope": ["Mass", "Nodule"]}}))
    assert "No finding is absent" not in " ".join(silo("--silo", kit).stderr.split())


def test_a_silo_without_labels_is_not_warned_of_what_they_lack(silo, archive):
    kit, _ = archive
    assert "No finding is absent" not in " ".join(silo("--silo", kit).stderr.split())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (lambda kit, tmp: ("--silo", tmp / "nowhere"), NotReady),
        (lambda kit, tmp: ("--silo", kit, "--source", tmp / "nowhere"), SourceEmpty),
        (lambda kit, tmp: ("--silo", kit, "--labels", tmp / "nowhere.csv"), LabelsInvalid),
    ],
)
def test_wrong_input_is_one_of_our_errors(silo, archive, tmp_path, arguments, error):
    result = silo(*arguments(archive[0], tmp_path))
    assert isinstance(result.exception, error)
    assert result.exception.remedy
