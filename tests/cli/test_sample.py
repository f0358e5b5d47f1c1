import json

import pytest
import yaml
from typer.testing import CliRunner

from silo_app.cli.sample import app
from silo_app.config import SiloConfig
from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.archive import read_archives


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_phantoms_as_text_and_as_json(tmp_path):
    out = tmp_path / "out"
    text = run("phantom", out, "--studies", "2,1", "--workers", 1)
    assert text.exit_code == 0
    assert text.stdout.splitlines()[0].startswith(f"{out}/hospital-a: ")
    envelope = json.loads(run("phantom", out, "--studies", "2,1", "--workers", 1, "--format", "json").stdout)
    assert (envelope["schema_version"], envelope["status"]) == (1, "ok")
    assert [one["studies"] for one in envelope["data"]["archives"]] == [2, 1]
    assert envelope["data"]["archives"][0]["synthetic"] is True


def test_what_is_printed_for_a_silo_reads_the_archive_as_its_own_file_says(tmp_path):
    shown = run("phantom", tmp_path / "out", "--studies", "2,1", "--workers", 1).stderr
    said = yaml.safe_load(shown[shown.index("sources:") :])
    (archive, _) = read_archives(tmp_path / "out")
    folder = archive.path.resolve()
    config = SiloConfig.model_validate({"name": "x", **said})
    assert config.labels == archive.labels.model_copy(update={"path": folder / "labels.csv"})
    assert archive.labels.scope
    assert [source.path for source in config.sources] == [folder / "dicom"]


@pytest.mark.parametrize("option", ["--hospitals", "--workers"])
def test_none_is_not_taken_for_the_default(tmp_path, option):
    refused = run("phantom", tmp_path / "out", option, 0)
    assert refused.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_bad_numbers_are_refused(tmp_path):
    with pytest.raises(SampleInvalid, match="'many' is not a number"):
        run("phantom", tmp_path / "out", "--studies", "many")


def test_an_unknown_finding_in_a_scope_is_refused(tmp_path):
    with pytest.raises(SampleInvalid, match="'Cough' is not in the shared vocabulary"):
        run("import", tmp_path, "--out", tmp_path / "out", "--scope", "Mass,Cough")


def test_an_import_names_what_it_could_not_use(tmp_path):
    rows = "pic,who,dx\na.png,1,clear\nb.png,2,cough\nc.png,3,clear\n"
    png = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU"
        b"\x00\x00\x00\nIDATx\x9cch\x00\x00\x00\x82\x00\x81w\xcdr\xb6\x00\x00\x00\x00IEND\xaeB`\x82"
    )
    source = tmp_path / "set"
    source.mkdir()
    (source / "labels.csv").write_text(rows)
    (source / "a.png").write_bytes(png)
    (source / "b.png").write_bytes(png)
    (source / "c.png").write_bytes(b"no image")
    columns = (
        "--file-column",
        "pic",
        "--patient-column",
        "who",
        "--findings-column",
        "dx",
        "--map",
        "clear=No Finding",
    )
    result = run("import", source, "--out", tmp_path / "out", "--hospitals", 1, "--workers", 1, *columns)
    assert result.exit_code == 0
    assert "1 of" not in result.stdout
    assert "2 patients, 2 studies, 2 images" in result.stdout
    assert "skipped set/c.png: not a PNG or JPEG" in result.stderr
    assert "'cough' in 1 rows is not in the shared vocabulary" in result.stderr


@pytest.mark.parametrize("command", [(), ("phantom",), ("import",)])
def test_help_has_examples_or_commands(command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "silo sample" in result.stdout or "phantom" in result.stdout
