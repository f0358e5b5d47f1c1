"""`silo catalogue`: counts for people and for programs."""

import json
import re

import pytest
from typer.testing import CliRunner

from silo_app.cli.catalogue import app
from silo_app.errors import ConfigInvalid, NotReady
from silo_app.imaging.ingest import ingest


@pytest.fixture
def silo():
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
    assert json.loads(silo("show", "--silo", kit, "--format", "json").stdout)["data"] == data
    assert sum(data.pop("brightness")) == pytest.approx(1, abs=1e-4)
    (origin,) = data.pop("origins")
    assert (origin["source"], origin["read_as"], origin["views"]) == ("ImageComments", "tag", 1)
    assert data == {
        "silo": "test",
        "patients": 1,
        "cases": 2,
        "series": 2,
        "views": 2,
        "splits": {"train": 2},
        "positions": {"PA": 1, "UNKNOWN": 1},
        "sexes": {"F": 1, "U": 1},
        "age_bands": {"unknown": 1, "30-39": 1},
        "study_years": {"unknown": 2},
        "devices": {"unknown": 1, "ACME x": 1},
        "sizes": {"under 512": 2},
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
    assert "1 patients, 2 cases, 2 series, 2 views (1 without a label)" in result.stdout
    for word in ("train", "30-39", "ACME x", "Pneumonia", "not-dicom"):
        assert word in result.stdout


def test_silo_without_catalogue_says_what_to_do(silo, make_silo):
    result = silo("--silo", make_silo().kit)
    assert isinstance(result.exception, NotReady)
    assert "silo ingest" in result.exception.remedy


def test_no_silo_named_is_told(silo, monkeypatch):
    monkeypatch.delenv("SILO", raising=False)
    assert isinstance(silo().exception, ConfigInvalid)


def test_page_stands_alone_and_escapes_what_a_device_calls_itself(silo, kit, tmp_path):
    page = tmp_path / "catalogue.html"
    assert silo("show", "--silo", kit, "--html", page).exit_code == 0
    text = page.read_text()
    assert page.stat().st_mode & 0o077 == 0
    assert "ACME x" in text
    assert "<script" not in text
    assert not re.search(r"""(src|href)=|url\(|https?://""", text)
    assert len(re.findall(r"<svg", text)) == 1
    for heading in ("Findings", "Age", "Sex", "View", "Split", "Device", "Size", "Brightness", "Where labels came from"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count('scope="row"') > 20
