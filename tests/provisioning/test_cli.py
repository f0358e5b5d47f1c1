import json

import pytest
import yaml

from provisioning import cli, kits
from silo_app.cli import edge


def run(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        edge.run(cli.app, [str(argument) for argument in arguments])
    return ended.value.code


def test_help_names_every_command(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for command in ("provision", "renew", "up", "down", "start", "stop", "status", "logs", "demo"):
        assert command in shown


@pytest.mark.parametrize("line", ["up", "down", "status", "logs", "start hospital-a", "stop hospital-a"])
def test_without_a_federation_every_command_says_what_to_do(line, tmp_path, capsys):
    assert run(*line.split(), "--dir", tmp_path) == 1
    shown = capsys.readouterr().err
    assert "no federation was provisioned" in shown
    assert "consortium provision provisioning/consortium.yaml" in shown


def test_status_as_json_is_one_envelope(provisioned, capsys):
    assert run("status", "--dir", provisioned.root, "--format", "json") == 0
    envelope = json.loads(capsys.readouterr().out)
    assert envelope["status"] == "ok"
    assert envelope["data"]["processes"][0] == {
        "name": "server",
        "state": "stopped",
        "pid": None,
        "since": None,
        "reached": None,
        "memory_bytes": 0,
        "restarts": 0,
        "last_exit": None,
    }


def test_status_for_people_lists_every_process(provisioned, capsys):
    assert run("status", "--dir", provisioned.root) == 0
    assert "hospital-b.index" in capsys.readouterr().out


def test_no_log_yet_is_an_error_with_a_remedy(provisioned, capsys):
    assert run("logs", "hospital-a", "--dir", provisioned.root) == 2
    assert "hospital-a has no log yet" in capsys.readouterr().err


def test_provisioning_tells_paths_lives_and_what_comes_next(provisioned, make_consortium, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(kits, "provision", lambda *_args, **_options: provisioned)
    file = tmp_path / "consortium.yaml"
    file.write_text(yaml.safe_dump(make_consortium().model_dump(mode="json")))
    assert run("provision", file, "--out", provisioned.root) == 0
    shown = capsys.readouterr()
    assert "nothing changed" in shown.err
    assert f"consortium up --dir {provisioned.root}" in shown.err
    assert "days)" in shown.out
    assert str(provisioned.kit("hospital-a")) in shown.out
    assert run("provision", file, "--out", provisioned.root, "--format", "json") == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert {kit["role"] for kit in data["kits"]} == {"server", "anchor", "silo", "person"}


def test_the_hints_after_up_work_as_they_are_printed(provisioned, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli.Federation, "up", lambda *_args, **_options: None)
    assert run("up", "--dir", provisioned.root) == 0
    root = provisioned.root
    assert f"`consortium status --dir {root}`, `consortium down --dir {root}`" in capsys.readouterr().err
    monkeypatch.setattr(cli, "_DEFAULT", provisioned.root)
    assert run("up", "--dir", provisioned.root) == 0
    assert "`consortium status`, `consortium down`" in capsys.readouterr().err
