"""`silo catalogue`: counts for people and for programs."""

import json

import pytest
import typer
from typer.testing import CliRunner

from silo_app.cli.catalogue import catalogue
from silo_app.errors import NotReady
from silo_app.imaging.ingest import ingest


@pytest.fixture
def silo():
    app = typer.Typer()
    app.command()(catalogue)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def kit(tmp_path, make_dicom, make_silo):
    home = make_silo(labels={"kind": "tag", "keyword": "ImageComments", "scope": ["Pneumonia"]}, held_out_share=0.0)
    facts = {"PatientSex": "F", "PatientAge": "034Y", "ViewPosition": "PA", "Manufacturer": "ACME [x]"}
    (tmp_path / "source" / "1.dcm").write_bytes(make_dicom(ImageComments="Mass", **facts))
    (tmp_path / "source" / "2.dcm").write_bytes(make_dicom())
    (tmp_path / "source" / "x.txt").write_text("x")
    ingest(home)
    return home.kit


def test_counts_as_json(silo, kit):
    data = json.loads(silo("--silo", kit, "--format", "json").stdout)["data"]
    assert data == {
        "silo": "test",
        "patients": 1,
        "cases": 2,
        "views": 2,
        "splits": {"train": 2},
        "positions": {"PA": 1, "UNKNOWN": 1},
        "sexes": {"F": 1, "U": 1},
        "age_bands": {"unknown": 1, "30-39": 1},
        "study_years": {"unknown": 2},
        "devices": {"unknown": 1, "ACME x": 1},
        "findings": {
            "Mass": {"present": 1, "absent": 0, "unknown": 1},
            "Pneumonia": {"present": 0, "absent": 1, "unknown": 1},
        },
        "unlabelled": 1,
        "refused": {"not-dicom": 1},
    }


def test_counts_for_people(silo, kit):
    result = silo("--silo", kit)
    assert result.exit_code == 0
    assert "1 patients, 2 cases, 2 views (1 without a label)" in result.stdout
    for word in ("train", "30-39", "ACME x", "Pneumonia", "not-dicom"):
        assert word in result.stdout


def test_silo_without_catalogue_says_what_to_do(silo, make_silo):
    result = silo("--silo", make_silo().kit)
    assert isinstance(result.exception, NotReady)
    assert "silo ingest" in result.exception.remedy
