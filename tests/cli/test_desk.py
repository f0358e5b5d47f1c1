"""`silo search` asks through the silo's desk where it runs, with the same result, and alone where it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from silo_app.cli import desk as desk_command
from silo_app.cli import edge
from silo_app.cli import search as search_command
from silo_app.encoder import checkpoint
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.identity import Identity
from silo_app.search import local
from silo_app.search.desk import client
from silo_app.search.desk.process import DeskProcess
from tests.cli.test_search import PICTURE, result

ROOT = Path(__file__).parents[2]
SPEC = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=16)

app = typer.Typer()
app.command("search")(search_command.search)
app.command("desk")(desk_command.desk)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [str(argument) for argument in arguments])
    return ended.value.code


@pytest.fixture
def home(stocked_kit):
    """A silo with an encoder, and a gateway that answers."""
    models = stocked_kit.models
    checkpoint.set_current(models, checkpoint.save(models, SPEC, to_vector(build(SPEC, 1)), {}))
    identity = Identity.load(stocked_kit.kit)
    server = local.FrameServer(stocked_kit.gateway_socket, lambda frame: result(identity, frame))
    server.start()
    yield stocked_kit
    server.close()


@pytest.fixture
def image(tmp_path, make_dicom):
    file = tmp_path / "image.dcm"
    file.write_bytes(make_dicom())
    return file


@pytest.fixture
def desk(home):
    process = DeskProcess(home)
    process.start()
    yield process
    process.close()


@pytest.fixture
def here(monkeypatch):
    """Count what is searched for without a desk."""
    searched, find = [], client.find

    def counted(*arguments):
        searched.append(arguments)
        return find(*arguments)

    monkeypatch.setattr(client, "find", counted)
    return searched


def found(capsys):
    data = json.loads(capsys.readouterr().out)["data"]
    return {name: value for name, value in data.items() if name not in {"query_id", "took_us"}}


def test_a_second_desk_says_that_one_runs(home, desk, capsys):
    assert run("desk", "--silo", home.kit) == 1
    assert "another process listens here already" in capsys.readouterr().err
    assert client.Desk.at(home).runs


def test_the_desk_is_used_and_not_needed(home, image, desk, here, capsys):
    options = ("--silo", home.kit, "--format", "json", "-k", "3", "--region", "0,0,0.5,0.5")
    assert run("search", image, *options) == 0
    there = found(capsys)
    assert here == []
    desk.close()
    assert run("search", image, *options) == 0
    assert found(capsys) == there
    assert len(here) == 1
    records = [json.loads(line) for line in home.audit.read_text().splitlines()]
    assert [record["event"] for record in records] == ["asking", "asked"] * 2
    told = [{name: record[name] for name in ("user", "purpose", "k", "received")} for record in records[1::2]]
    assert told[0] == told[1]


@pytest.mark.usefixtures("desk")
def test_pages_have_the_pictures_that_came_through_the_desk(home, image, here, tmp_path, capsys):
    import base64

    page = tmp_path / "similar.html"
    assert run("search", image, "--silo", home.kit, "--html", page, "--format", "json") == 0
    assert here == []
    assert base64.b64encode(PICTURE).decode() in page.read_text()
    assert "thumbnail" not in capsys.readouterr().out


@pytest.mark.usefixtures("desk")
def test_errors_are_those_of_a_search_without_it(home, here, tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("not DICOM")
    assert run("search", file, "--silo", home.kit) == 2
    told = capsys.readouterr().err
    assert f"{file}: " in told
    assert "image-unsupported" in told
    assert here == []


@pytest.mark.usefixtures("desk")
def test_a_search_through_the_desk_loads_neither_network_nor_decoders(home, image):
    code = f"""
import sys
from silo_app.cli import edge, main
try:
    edge.run(main.app, ["search", {str(image)!r}, "--silo", {str(home.kit)!r}, "--format", "json"])
finally:
    print(sorted({{"torch", "monai", "tenseal", "pydicom", "faiss"}} & set(sys.modules)), file=sys.stderr)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment, timeout=120
    )
    assert json.loads(done.stdout)["data"]["hits"]
    assert done.stderr.splitlines()[-1] == "[]"
