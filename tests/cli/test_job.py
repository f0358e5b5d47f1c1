"""`silo job`: what is refused before anything is submitted, and giving up a job that did not finish."""

import json
import logging
import socket
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from silo_app.cli import edge
from silo_app.cli.job import _table
from silo_app.cli.main import app
from silo_app.encoder import job_state
from silo_app.encoder.job_state import JobState
from silo_app.errors import JobUnknown

JOBS = Path(__file__).parents[2] / "jobs"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, [*map(str, arguments), "--format", "json"])
    return ended.value.code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--resume", "--set", "rounds=3"), "a job is resumed with the settings that it began with"),
        (("7f2c",), "'7f2c' is given without --resume"),
        (("--admit", "hospital-d"), "'hospital-d' is given without --resume"),
    ],
)
def test_what_does_not_go_together_is_refused(capsys, tmp_path, arguments, problem):
    status, envelope = run(capsys, "job", "submit", "jobs/train", "--admin", tmp_path, *arguments)
    assert status == 2
    assert envelope["error"]["problem"] == problem


@pytest.mark.parametrize(
    ("job", "setting", "problem"),
    [
        ("train", "roundz=1", "unknown setting roundz; did you mean rounds?"),
        ("train", "training.batchsize=4", "unknown setting training.batchsize; did you mean training.batch_size?"),
        ("train", "rounds=abc", "rounds: Input should be a valid integer, unable to parse string as an integer"),
        ("evaluate", "floors=maybe", "floors: Input should be a valid boolean, unable to interpret input"),
        ("search", "budget=5", "unknown setting budget; did you mean silo_budget_ms?"),
    ],
)
def test_a_wrong_setting_is_refused_before_anybody_is_asked(capsys, tmp_path, job, setting, problem):
    status, envelope = run(capsys, "job", "submit", JOBS / job, "--admin", tmp_path, "--set", setting)
    assert (status, envelope["error"]["where"], envelope["error"]["problem"]) == (2, "--set", problem)


def test_sound_settings_go_on_to_the_server(capsys, tmp_path):
    status, envelope = run(capsys, "job", "submit", JOBS / "train", "--admin", tmp_path, "--set", "rounds=3")
    assert (status, envelope["error"]["code"]) == (1, "certificate-missing")


def test_only_a_training_can_be_resumed(capsys, tmp_path):
    status, envelope = run(capsys, "job", "submit", JOBS / "index", "--admin", tmp_path, "--resume")
    assert (status, envelope["error"]["where"]) == (2, "--resume")


@pytest.mark.parametrize(("named", "gone"), [((), ["old", "new"]), (("old",), ["old"]), (("other",), [])])
def test_a_job_is_given_up(capsys, tmp_path, named, gone):
    kit = tmp_path / "alpha"
    (kit / "local").mkdir(parents=True)
    (kit / "local" / "silo.yaml").write_text("name: alpha\n")
    jobs = kit / "silo" / "jobs"
    for job in ("old", "new"):
        JobState(job=job, weights=np.zeros(2, np.float32), session=b"", trained=0, plan={}, before={}).write(jobs)
    status, envelope = run(capsys, "job", "forget", *named, "--silo", kit)
    assert status == 0
    assert envelope["data"]["forgotten"] == gone
    assert [job for job in ("old", "new") if (jobs / job / "state").exists()] == [j for j in ("old", "new") if j not in gone]


@pytest.mark.parametrize(
    ("named", "says"),
    [((), "This silo keeps nothing of any job"), (("7f2c1e9a",), "This silo keeps nothing of job 7f2c1e9a")],
)
def test_that_there_is_nothing_to_give_up_is_told_to_people_alone(capsys, tmp_path, named, says):
    kit = tmp_path / "alpha"
    (kit / "local").mkdir(parents=True)
    (kit / "local" / "silo.yaml").write_text("name: alpha\n")
    with pytest.raises(SystemExit) as ended:
        edge.run(app, ["job", "forget", *named, "--silo", str(kit)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (0, "")
    assert says in printed.err


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("7f2c1e9a", "7f2c1e9a-00"),
        ("260888e9", "260888e9-1"),
        ("260888e9-1", "260888e9-1"),
        ("7f2c", "7f2c"),
        ("nobody's", "nobody's"),
    ],
)
def test_a_job_is_named_by_its_first_digits(tmp_path, text, named):
    for job in ("7f2c1e9a-00", "260888e9-1", "260888e9-12"):
        (tmp_path / job).mkdir()
    if text == "260888e9":
        with pytest.raises(JobUnknown, match="more than one job"):
            job_state.named(tmp_path, text)
    else:
        assert job_state.named(tmp_path, text) == named


def test_a_list_of_jobs_in_a_pipe_is_whole(capsys):
    state = {"job": "7f2c1e9a-0000-4000-8000-000000000001", "name": "train", "status": "FINISHED:COMPLETED"}
    _table([state | {"submitted": "2026-11-28T17:30:12+00:00", "duration": "0:01:20"}])
    line = capsys.readouterr().out.splitlines()[1]
    assert line == f"{state['job']}  train  FINISHED: COMPLETED  2026-11-28 17:30  0:01:20"


def test_a_server_that_is_away_is_one_error_and_nothing_of_nvflares(capsys, tmp_path, monkeypatch):
    from nvflare.fuel.flare_api import flare_api
    from nvflare.fuel.flare_api.api_spec import NoConnection

    def refused(*_, **__):
        print("Connecting to FLARE ...")  # noqa: T201  (as NVFlare does)
        logging.getLogger("nvflare.fuel.f3.sfm.conn_manager").error("Connector failed")
        raise NoConnection("cannot connect")

    monkeypatch.setattr(flare_api, "new_secure_session", refused)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of its own
    (tmp_path / "startup").mkdir()
    with socket.create_server(("localhost", 0)) as server:
        admin = {"username": "lead@example.org", "host": "localhost", "port": server.getsockname()[1]}
        (tmp_path / "startup" / "fed_admin.json").write_text(json.dumps({"admin": admin}))
        Thread(target=lambda: server.accept()[0].close(), daemon=True).start()  # noqa: PLW0108  (not before it is awaited)
        with pytest.raises(SystemExit):
            edge.run(app, ["job", "list", "--admin", str(tmp_path)])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cannot log in as lead@example.org: cannot connect" in printed.err
    assert "Connect" not in printed.err.replace("cannot connect", "")
