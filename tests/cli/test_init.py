"""`silo init` makes a silo that loads, or nothing."""

import pytest
import typer
from typer.testing import CliRunner

from silo_app.cases import Finding
from silo_app.cli.init import init
from silo_app.config import CsvLabels, load
from silo_app.errors import ConfigInvalid


@pytest.fixture
def silo():
    app = typer.Typer()
    app.command()(init)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_silo_loads_with_what_was_asked_for(silo, tmp_path):
    kit = tmp_path / "kit"
    result = silo(
        *(kit, "--name", "st-anna", "--source", tmp_path / "dicom", "--labels", tmp_path / "l.csv"),
        *("--key", "file", "--findings-column", "finding", "--map", "normal=No Finding", "--map", "a=b=Mass"),
        *("--scope", "Pneumonia", "--held-out-share", "0.3"),
    )
    assert isinstance(result.exception, ConfigInvalid)  # "a=b=Mass" maps to nothing known
    assert not (kit / "local" / "silo.yaml").exists()
    result = silo(
        *(kit, "--name", "st-anna", "--source", tmp_path / "dicom", "--labels", tmp_path / "l.csv"),
        *("--key", "file", "--findings-column", "finding", "--map", "normal=No Finding"),
        *("--scope", "Pneumonia", "--held-out-share", "0.3"),
    )
    assert result.exit_code == 0
    assert "silo ingest --silo" in result.stderr
    config = load(kit).config
    assert (config.name, config.held_out_share, config.sources[0].path) == ("st-anna", 0.3, tmp_path / "dicom")
    assert config.labels == CsvLabels(
        path=tmp_path / "l.csv",
        key="file",
        key_column="file",
        findings_column="finding",
        mapping={"normal": Finding.NO_FINDING},
        scope=(Finding.PNEUMONIA,),
    )
    assert (kit / "local" / "silo.yaml").stat().st_mode & 0o077 == 0


def test_existing_silo_is_left_alone(silo, tmp_path):
    assert silo(tmp_path, "--name", "one").exit_code == 0
    result = silo(tmp_path, "--name", "two")
    assert isinstance(result.exception, ConfigInvalid)
    assert load(tmp_path).config.name == "one"


@pytest.mark.parametrize("options", [("--name", "St Anna"), ("--name", "a", "--held-out-share", "2")])
def test_wrong_options_are_all_reported(silo, tmp_path, options):
    result = silo(tmp_path / "kit", *options)
    assert isinstance(result.exception, ConfigInvalid)
    assert "silo.yaml" in result.exception.problem


def test_map_without_equals_sign_is_explained(silo, tmp_path):
    result = silo(tmp_path / "kit", "--name", "a", "--labels", "l.csv", "--map", "normal")
    assert "WORD=FINDING" in str(result.exception)
