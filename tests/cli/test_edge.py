"""The command line's edge: data on stdout, people on stderr, one envelope for programs, a status for every outcome."""

import errno
import importlib.metadata
import json
from pathlib import Path
from typing import Annotated

import pytest
import typer

from provisioning.cli import app as consortium
from silo_app.cli import main
from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, emit, run, writable_folder
from silo_app.errors import ConfigInvalid, NotReady

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def good(output: FormatOption = OutputFormat.TABLE) -> None:
    emit({"cases": 3, "name": "Grüße"}, output, lambda data: typer.echo(f"{data['cases']} cases"))


@app.command()
def bad(kind: Annotated[str, typer.Argument()], output: FormatOption = OutputFormat.TABLE) -> None:
    if kind == "input":
        raise ConfigInvalid("rounds: [0] is less than 1", where="job.json", remedy="Write 1 or more.")
    if kind == "state":
        raise NotReady("no encoder", remedy="Train one.")
    if kind == "stop":
        raise KeyboardInterrupt
    if kind == "exit":
        raise typer.Exit(3)
    if kind == "pipe":
        raise BrokenPipeError
    if kind == "closed":
        raise PermissionError(errno.EACCES, "Permission denied", "local/silo.yaml")
    if kind == "lost":
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a bug")
    raise ZeroDivisionError("a bug")


@app.command()
def write(
    html: HtmlOption = None,
    out: Annotated[Path | None, typer.Option(callback=writable_folder)] = None,
) -> None:
    typer.echo("the work is done")


def ended(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        run(app, list(arguments))
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_people_get_text_and_programs_get_one_envelope(capsys):
    assert ended(capsys, "good") == (0, "3 cases\n", "")
    status, out, err = ended(capsys, "good", "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"schema_version": 1, "status": "ok", "data": {"cases": 3, "name": "Grüße"}}
    assert out.count("\n") == 1


def test_an_error_is_a_problem_a_place_a_remedy_and_a_code(capsys):
    status, out, err = ended(capsys, "bad", "input")
    assert (status, out) == (2, "")
    assert err == (
        "error: job.json: rounds: [0] is less than 1\nWrite 1 or more.\n"
        "config-invalid (docs/errors/README.md#config-invalid)\n"
    )


@pytest.mark.parametrize("option", [["--format", "json"], ["--format=json"]])
def test_an_error_for_programs_is_one_envelope(capsys, option):
    status, out, err = ended(capsys, "bad", "state", *option)
    assert (status, err) == (1, "")
    error = {"code": "not-ready", "problem": "no encoder", "where": "", "remedy": "Train one."}
    assert json.loads(out) == {"schema_version": 1, "status": "error", "error": error}


@pytest.mark.parametrize(("kind", "status"), [("stop", 130), ("exit", 3), ("pipe", 1), ("bug", 70)])
def test_every_end_has_its_status(capsys, kind, status):
    assert ended(capsys, "bad", kind)[0] == status


def test_a_bug_shows_its_traceback_and_says_that_it_is_one(capsys):
    _, out, err = ended(capsys, "bad", "bug")
    assert not out
    assert "Traceback" in err
    assert "ZeroDivisionError: a bug" in err
    assert "This is a bug: report it." in err


@pytest.mark.parametrize("arguments", [["no-such-command"], ["good", "--no-such-option"], ["bad"]])
def test_a_wrong_command_line_is_a_usage_error(capsys, arguments):
    status, out, err = ended(capsys, *arguments)
    assert (status, out) == (2, "")
    assert "Usage" in err
    status, out, err = ended(capsys, *arguments, "--format", "json")
    assert (status, err) == (2, "")
    assert json.loads(out)["error"]["code"] == "usage"


@pytest.mark.parametrize("program", [main.app, consortium])
def test_both_commands_say_which_version_they_are(capsys, program):
    with pytest.raises(SystemExit) as over:
        run(program, ["--version"])
    assert over.value.code == 0
    assert capsys.readouterr().out == f"siloscope {importlib.metadata.version('siloscope')}\n"


def test_what_the_system_refuses_is_no_bug(capsys):
    status, _, err = ended(capsys, "bad", "closed")
    assert status == NotReady.exit_status
    assert err.startswith("error: local/silo.yaml: the system refuses it: Permission denied\nLet the account")
    assert "Traceback" not in err


def test_a_file_that_we_did_not_expect_to_miss_is_a_bug(capsys):
    status, _, err = ended(capsys, "bad", "lost")
    assert (status, "Traceback" in err, "This is a bug" in err) == (70, True, True)


@pytest.mark.parametrize(
    ("option", "place", "problem"),
    [
        ("--html", "nodir/x.html", "no file can be made there"),
        ("--html", "file/x.html", "no file can be made there"),
        ("--html", ".", "a folder lies there"),
        ("--out", "file", "a file lies there"),
        ("--out", "file/below", "file cannot hold a folder"),
        ("--out", "link", "a file lies there"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_any_work(capsys, tmp_path, monkeypatch, option, place, problem):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    status, out, err = ended(capsys, "write", option, place)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {place}: ")
    assert problem in err.partition("\n")[0]
    assert "config-invalid" in err


@pytest.mark.parametrize(
    ("option", "place"), [("--html", "file"), ("--html", "new"), ("--out", "."), ("--out", "new/below")]
)
def test_where_something_can_be_written_is_no_matter(capsys, tmp_path, monkeypatch, option, place):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert ended(capsys, "write", option, place) == (0, "the work is done\n", "")


def test_a_folder_that_may_not_be_written_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert ended(capsys, "write", "--html", str(tmp_path / "x.html"))[0] == 2
    assert ended(capsys, "write", "--out", str(tmp_path / "x"))[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        "catalogue show --silo kit --html nodir/x.html",
        "deid-check --silo kit --html nodir/x.html",
        "survey show record --html nodir/x.html",
        "evaluate --silo kit --json nodir/x.json",
        "evaluate --job record --html nodir/x.html",
        "deid picture --silo kit --out file",
        "init file --name x",
        "sample phantom file/below",
        "sample import set --out file/below",
    ],
)
def test_every_command_says_so_before_it_looks_at_anything_else(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as end:
        run(main.app, words.split())
    assert end.value.code == 2
    assert "Name a f" in capsys.readouterr().err
