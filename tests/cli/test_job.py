"""`silo job`: what is refused before anything is submitted, and giving up a job that did not finish."""

import json

import numpy as np
import pytest

from silo_app.cli import edge
from silo_app.cli.job import _table
from silo_app.cli.main import app
from silo_app.encoder import job_state
from silo_app.encoder.job_state import JobState
from silo_app.errors import JobUnknown


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
