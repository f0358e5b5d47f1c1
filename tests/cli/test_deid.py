"""`silo deid`, `silo deid-check`, `silo catalogue whois`: what people and programs see."""

import json

import pytest
import typer

from silo_app.cli import catalogue as catalogue_command
from silo_app.cli import deid as deid_command
from silo_app.cli import edge
from silo_app.imaging.ingest import ingest
from silo_app.imaging.recall import Subject, recall

app = typer.Typer()
app.command("deid")(deid_command.deid)
app.command("deid-check")(deid_command.deid_check)
app.add_typer(catalogue_command.app, name="catalogue")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def files(tmp_path, make_dicom):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "one.dcm").write_bytes(
        make_dicom(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2.4", PatientID="SECRETID", BodyPartExamined="CHEST")
    )
    (folder / "ct.dcm").write_bytes(make_dicom(Modality="CT"))
    (folder / "named.dcm").write_bytes(make_dicom(BurnedInAnnotation="YES"))
    return folder


def data(capsys):
    return json.loads(capsys.readouterr().out)["data"]


def test_copies_are_written_and_audited(files, make_silo, tmp_path, capsys):
    home = make_silo()
    home.root.mkdir()
    assert run("deid", files, "--out", tmp_path / "out", "--silo", home.kit, "--format", "json") == 0
    result = data(capsys)
    (name,) = result["written"]
    assert [reason for _, reason, _ in result["refused"]] == ["not-an-x-ray", "burned-in-annotation"]
    file = tmp_path / "out" / name
    assert b"SECRETID" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    (line,) = home.audit.read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["files"]) == ("deid-export", 1)
    again = file.read_bytes()
    assert run("deid", files / "one.dcm", "--out", tmp_path / "out", "--silo", home.kit) == 0
    assert (file.read_bytes(), len(list((tmp_path / "out").iterdir()))) == (again, 1)
    assert str(file) in capsys.readouterr().out


def test_nothing_usable_is_a_status_of_its_own(files, make_silo, tmp_path):
    home = make_silo(imaging={"burned_in": "warn"})
    home.root.mkdir()
    assert run("deid", files / "ct.dcm", "--out", tmp_path / "out", "--silo", home.kit) == 2
    assert run("deid", files / "named.dcm", "--out", tmp_path / "out", "--silo", home.kit) == 0
    assert run("deid", files / "nowhere", "--out", tmp_path / "out", "--silo", home.kit) == 2


def test_what_was_taken_out_of_the_silo_is_not_copied(make_silo, make_dicom, tmp_path, capsys):
    home = make_silo()
    (tmp_path / "source" / "one.dcm").write_bytes(make_dicom(PatientID="GONE"))
    (tmp_path / "source" / "two.dcm").write_bytes(make_dicom(PatientID="STAYS"))
    assert ingest(home, workers=1).views == 2
    recall(home, Subject(patient_id="GONE"), user="u", reason="consent")
    assert run("deid", tmp_path / "source", "--out", tmp_path / "out", "--silo", home.kit, "--format", "json") == 0
    result = data(capsys)
    assert (len(result["written"]), [one[1] for one in result["refused"]]) == (1, ["recalled"])
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_no_copy_replaces_another_one(make_silo, make_dicom, make_picture, tmp_path, capsys):
    """Of two files of one image the first counts; the same bytes are the same copy."""
    home = make_silo()
    home.root.mkdir()
    for number, uid in enumerate(["1.2", "1.2", "1.3"]):
        folder = tmp_path / "source" / str(number)
        folder.mkdir()
        (folder / "1.dcm").write_bytes(make_dicom(make_picture(24, 20, seed=number), SOPInstanceUID=uid, PatientName="A"))
    (tmp_path / "source" / "same.dcm").write_bytes((tmp_path / "source" / "0" / "1.dcm").read_bytes())
    assert run("deid", tmp_path / "source", "--out", tmp_path / "out", "--silo", home.kit, "--format", "json") == 0
    result = data(capsys)
    assert [(file.split("/")[-2], reason) for file, reason, _ in result["refused"]] == [("1", "duplicate-instance")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(result["written"])
    assert len(set(result["written"])) == 2


def test_copies_are_audited_however_it_ends(files, make_silo, tmp_path):
    home = make_silo()
    home.root.mkdir()
    assert run("deid", files / "one.dcm", files / "nowhere", "--out", tmp_path / "out", "--silo", home.kit) != 0
    assert len(list((tmp_path / "out").iterdir())) == 1
    (line,) = home.audit.read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["files"]) == ("deid-export", 1)


def test_evidence_of_files(files, tmp_path, capsys):
    assert run("deid-check", files, "--html", tmp_path / "page.html", "--format", "json") == 0
    found = data(capsys)
    assert (found["files"], found["taken"], found["refused"]) == (3, 2, {"not-an-x-ray": 1})
    assert found["burned_in"] == {"BurnedInAnnotation is YES": 1, "not said by tags; not read": 1}
    assert found["remaining"]["BodyPartExamined"] == {"files": 1, "examples": ["AAAAA"]}
    assert found["removed"]["named by key: PatientID"] == 2
    assert "PatientName" not in {name for name, left in found["remaining"].items() if left["examples"] != ["(empty)"]}
    page = (tmp_path / "page.html").read_text()
    assert "BodyPartExamined" in page
    assert "SECRETID" not in page
    assert run("deid-check", files, "--show-values", "--format", "json") == 0
    assert data(capsys)["remaining"]["BodyPartExamined"]["examples"] == ["CHEST"]
    assert run("deid-check", files) == 0
    assert "BodyPartExamined" in capsys.readouterr().out


def test_evidence_of_a_silo(files, make_silo, tmp_path, capsys):
    home = make_silo()
    ingest(home, workers=1)
    home.key.chmod(0o644)
    assert run("deid-check", "--silo", home.kit, "--html", tmp_path / "page.html", "--format", "json") == 0
    found = data(capsys)
    assert {store["name"]: store["open_to_others"] for store in found["stores"]}["silo.key"] == 1
    columns = {column["name"]: column for column in found["columns"]}
    assert columns["files.path"]["shapes"] == ["sealed"]
    assert columns["crosswalk.sealed"]["rows"] == 1
    assert "64 hex digits" in columns["patients.key"]["shapes"]
    assert "silo.key" in (tmp_path / "page.html").read_text()
    assert run("deid-check", "--silo", home.kit) == 0


def test_neither_files_nor_a_silo(monkeypatch, capsys):
    monkeypatch.delenv("SILO", raising=False)
    assert run("deid-check") == 2
    assert "neither files nor a silo" in capsys.readouterr().err


def test_whois(files, make_silo, capsys):
    from silo_app.catalogue import Catalogue

    home = make_silo()
    ingest(home, workers=1)
    with Catalogue.open(home.catalogue) as catalogue:
        (view,) = catalogue.views()
    assert run("catalogue", "whois", view.case[:8], "--silo", home.kit, "--reason", "care", "--format", "json") == 0
    assert data(capsys)["study"] == {"study_uid": "1.2.4", "accession": "", "patient_id": "SECRETID", "issuer": ""}
    assert run("catalogue", "whois", view.case, "--silo", home.kit, "--reason", "care") == 0
    assert "SECRETID" in capsys.readouterr().out
    assert len(home.audit.read_text().splitlines()) == 2
    assert run("catalogue", "whois", "0" * 32, "--silo", home.kit, "--reason", "care") == 2
    assert "case-unknown" in capsys.readouterr().err
