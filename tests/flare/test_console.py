"""A submitted job is a copy: the folder stays as it is, and settings go where the plan is."""

import json
import shutil
import socket
import time
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace

import pytest
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import NoConnection

from silo_app.encoder.job_record import REJECTED, UNOPENED, Quarantined, RoundRecord
from silo_app.errors import CertificateMissing, ConfigInvalid, JobFailed, JobUnknown, NotReady, ServerUnreachable
from silo_app.flare.console import Console, JobState, records_told, stage_job, told_of_failure, told_of_rounds

JOBS = Path(__file__).parents[2] / "jobs"


def plan_of(folder):
    return json.loads((folder / "app" / "config" / "config_fed_server.json").read_text())["workflows"][0]["args"]["plan"]


def test_settings_go_into_the_copy_only():
    before = plan_of(JOBS / "train")
    with stage_job(JOBS / "train", {"rounds": 3, "training.batch_size": 16}) as staged:
        assert staged.name == "train"
        assert plan_of(staged) == before | {"rounds": 3, "training": before["training"] | {"batch_size": 16}}
    assert plan_of(JOBS / "train") == before
    assert not staged.exists()


def test_what_nvflare_left_in_the_folder_is_not_copied(tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "meta.json").write_text("{}")
    (folder / ".__nvfl_sig.json").write_text("{}")
    with stage_job(folder, {}) as staged:
        assert [path.name for path in staged.iterdir()] == ["meta.json"]


def test_a_setting_below_a_number_is_refused():
    with pytest.raises(ConfigInvalid, match="rounds holds no settings"), stage_job(JOBS / "train", {"rounds.x": 1}):
        pass


def changed_job(tmp_path, job, change):
    """A copy of one of our jobs, edited by hand."""
    folder = tmp_path / job
    shutil.copytree(JOBS / job, folder)
    file = folder / "app" / "config" / "config_fed_server.json"
    content = json.loads(file.read_text())
    change(content["workflows"][0])
    file.write_text(json.dumps(content))
    return folder, file


def test_a_job_that_was_edited_is_checked_and_the_file_named(tmp_path):
    folder, file = changed_job(tmp_path, "train", lambda first: first["args"]["plan"].update(roundz=3))
    for settings in ({}, {"rounds": 3}):
        with (
            pytest.raises(ConfigInvalid, match="unknown setting roundz; did you mean rounds") as refused,
            stage_job(folder, settings),
        ):
            pass
        assert refused.value.where == str(file)


def test_a_job_of_others_is_sent_as_it_is(tmp_path):
    folder, _ = changed_job(tmp_path, "train", lambda first: first.update(path="other.Controller", args={"roundz": 3}))
    with stage_job(folder, {"anything": 1}) as staged:
        written = json.loads((staged / "app" / "config" / "config_fed_server.json").read_text())
    assert written["workflows"][0]["args"] == {"roundz": 3, "anything": 1}


def test_settings_find_their_place_in_a_job_without_any(tmp_path):
    folder, _ = changed_job(tmp_path, "train", lambda first: first.update(args={}))
    with stage_job(folder, {"rounds": 3}) as staged:
        assert plan_of(staged) == {"rounds": 3}


def test_a_server_file_that_is_no_json_is_named(tmp_path):
    folder, file = changed_job(tmp_path, "index", lambda first: None)
    file.write_text("{")
    with pytest.raises(ConfigInvalid, match="cannot be read as JSON"), stage_job(folder, {}):
        pass


def test_a_folder_that_is_no_job_is_refused(tmp_path):
    with pytest.raises(NotReady, match=r"has no meta\.json"), stage_job(tmp_path, {}):
        pass


def test_a_kit_that_is_no_researchers_is_refused(tmp_path):
    with pytest.raises(CertificateMissing, match="not a researcher's startup kit"), Console.open(tmp_path):
        pass


def admin_kit(folder, port):
    (folder / "startup").mkdir()
    admin = {"username": "lead@x.example", "host": "localhost", "port": port}
    (folder / "startup" / "fed_admin.json").write_text(json.dumps({"admin": admin}))


def hanging_up(server):
    """Answer one connection in the shortest way."""

    def answer():
        connection, _ = server.accept()
        connection.close()

    Thread(target=answer).start()


def test_a_person_whom_the_server_does_not_let_in_is_told_so(tmp_path, monkeypatch):
    def not_registered(*_args, **_options):
        raise FLCommunicationError("error:client_registration")

    monkeypatch.setattr("nvflare.fuel.flare_api.flare_api.new_secure_session", not_registered)
    with socket.create_server(("localhost", 0)) as server:
        admin_kit(tmp_path, server.getsockname()[1])
        hanging_up(server)
        with pytest.raises(ServerUnreachable, match=r"does not let lead@x\.example in"), Console.open(tmp_path):
            pass


def test_a_server_that_is_down_is_told_within_seconds(tmp_path):
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    admin_kit(tmp_path, port)
    start = time.monotonic()
    with pytest.raises(ServerUnreachable, match=f"nobody answers at localhost:{port} .Connection refused"):
        Console.open(tmp_path).__enter__()
    assert time.monotonic() - start < 10


def test_a_server_that_hangs_is_told_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("silo_app.flare.reach._ANSWERS_WITHIN_S", 1.0)
    with socket.create_server(("localhost", 0)) as server:  # the system takes the connection
        port = server.getsockname()[1]
        admin_kit(tmp_path, port)
        with pytest.raises(ServerUnreachable, match=f"connections at localhost:{port}, and has said nothing for 1 s"):
            Console.open(tmp_path).__enter__()


def test_a_server_that_is_just_being_started_is_waited_for(tmp_path, monkeypatch):
    def not_registered(*_args, **_options):
        raise FLCommunicationError("error:client_registration")

    monkeypatch.setattr("nvflare.fuel.flare_api.flare_api.new_secure_session", not_registered)
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
    admin_kit(tmp_path, port)
    servers = []

    def start():
        servers.append(socket.create_server(("localhost", port)))
        hanging_up(servers[0])

    Timer(0.5, start).start()
    with pytest.raises(ServerUnreachable, match="does not let"), Console.open(tmp_path):
        pass
    servers[0].close()


def test_what_a_log_says_of_the_rounds():
    prefix = "2026-11-23 18:13:27,161 - TrainingRounds - INFO - [identity=four, run=1, wf=rounds] - "
    other = "2026-11-23 18:13:27,161 - ServerRunner - INFO - [identity=four, run=1] - sum of nothing"
    wanted = ["entered: c", "d may not enter: it is junk", "c is not in the job: it differs", "joined: a, b"]
    wanted += ["round 1: sum of a; without b: late (update)", "round 2: void: too few"]
    assert told_of_rounds("\n".join([other, *(prefix + line for line in wanted), prefix + "Workflow started"])) == wanted


def test_what_a_log_says_of_why_a_job_ended():
    log = (
        "2026-11-23 18:13:27,161 - ServerRunner - INFO - [identity=four, run=1] - started\n"
        "2026-11-23 18:13:29,161 - ServerRunner - ERROR - [identity=four, run=1] - Aborting current RUN due to "
        "FATAL_SYSTEM_ERROR received: 3 rounds in a row ended without a sum\n"
        "Look at the silos named in rounds.json.\n"
    )
    assert told_of_failure(log) == "3 rounds in a row ended without a sum"
    assert told_of_failure("nothing of it") == ""


def test_why_nvflare_ended_a_jobs_process_is_told():
    line = "2026-11-28 04:59:21,946 - Adapter - CRITICAL - failed to decode; exiting job process"
    assert told_of_failure(f"INFO\n{line}\nmore") == "failed to decode; exiting job process"


def test_the_rounds_entries_come_out_of_a_log_that_is_being_written():
    prefix = "2026-11-23 18:13:27,161 - TrainingRounds - INFO - [identity=four, run=1, wf=rounds] - "
    one = RoundRecord(number=1, content="update", round=0, participants=("a", "b"), contributors=("a",), seconds=1.5)
    one.quarantine({"b": Quarantined.absence("late", "update")})
    log = "\n".join([prefix + one.sentence(), prefix + one.as_line(), prefix + one.as_line()[:60]])
    assert records_told(log) == [one.content_of()]
    assert told_of_rounds(log) == ["round 1: sum of a; without b: late (update)"]


def test_a_server_that_goes_away_while_a_job_is_followed_is_no_failed_job():
    def away(_job):
        raise NoConnection("cannot connect to server: ERROR_SERVER_CONNECTION")

    with pytest.raises(ServerUnreachable, match="the server went away; what became of job"):
        Console(SimpleNamespace(get_job_meta=away)).wait("7f2c1e9a", timeout_s=5)


@pytest.mark.parametrize("why", [UNOPENED, REJECTED])
def test_a_sum_that_was_taken_back_is_void_in_what_a_log_tells(why):
    prefix = "2026-11-23 18:13:27,161 - TrainingRounds - INFO - [identity=four, run=1, wf=rounds] - "
    rounds = [RoundRecord(number=number, content="update", round=0, contributors=("a",)) for number in (1, 2)]
    log = "\n".join(prefix + line for line in (rounds[0].as_line(), f"exchange 1: {why}", rounds[1].as_line()))
    assert [(one["outcome"], one["why"]) for one in records_told(log)] == [("void", why), ("sum", "")]


def log_of(*outcomes):
    """The server's log of a training with so many rounds."""
    prefix = "2026-11-23 18:13:27,161 - TrainingRounds - INFO - [identity=four, run=1, wf=rounds] - "
    rounds = [
        RoundRecord(number=n, content="update", round=n, void="" if one == "sum" else one) for n, one in enumerate(outcomes)
    ]
    return "\n".join(prefix + line for one in rounds for line in (one.sentence(), one.as_line()))


def console_of(*jobs, logs=None):
    metas = [{"job_id": job, "name": name, "status": status} for job, name, status in jobs]
    logs = {"2": log_of("sum")} if logs is None else logs
    session = SimpleNamespace(
        list_jobs=lambda **_: metas,
        get_job_meta=lambda job: next(m for m in metas if m["job_id"] == job),
        get_job_logs=lambda job, target: {"logs": {target: logs[job]}},
    )
    return Console(session)


ONE, OTHER = "7f2c1e9a-0000-4000-8000-000000000001", "7f2c1e9a-0000-4000-8000-000000000002"


def test_the_first_digits_name_a_job_where_only_one_begins_so():
    console = console_of((ONE, "train", "RUNNING"), (OTHER, "index", "RUNNING"), ("260888e9" + ONE[8:], "search", "RUNNING"))
    assert console.named("260888e9") == "260888e9" + ONE[8:]
    assert console.named(f" {OTHER.upper()}\n") == OTHER
    for text, problem in [("7f2c1e9a", "more than one job"), ("00000000", "no job begins"), ("7f2c", "is no job's id")]:
        with pytest.raises(JobUnknown, match=problem):
            console.named(text)


def test_times_are_told_to_the_second():
    told = {"job_id": ONE, "submit_time_iso": "2026-11-28T17:30:12.123456+00:00", "duration": "0:01:20.654321"}
    state = Console(SimpleNamespace(get_job_meta=lambda _: told)).state(ONE)
    assert (state.submitted, state.duration) == ("2026-11-28T17:30:12+00:00", "0:01:20")


def test_the_newest_training_that_did_not_complete_is_resumed():
    console = console_of(("3", "index", "FINISHED:COMPLETED"), ("2", "train", "FINISHED:ABNORMAL"), ("1", "train", "x"))
    assert console.unfinished("train") == "2"
    assert console.unfinished("train", "2") == "2"


def test_a_job_that_closed_no_round_does_not_stand_before_one_that_did():
    mistyped, voided = ("4", "train", "FINISHED:EXECUTION_EXCEPTION"), ("3", "train", "FINISHED:ABORTED")
    logs = {"4": log_of(), "3": log_of("too few"), "2": log_of("too few", "sum")}
    told = []
    console = console_of(mistyped, voided, ("2", "train", "FINISHED:ABORTED"), logs=logs)
    assert console.unfinished("train", tell=told.append) == "2"
    assert [line.split(" (")[0] for line in told] == ["job 4", "job 3"]
    assert console.unfinished("train", "3") == "3"  # who names one knows why


def test_without_any_closed_round_there_is_nothing_to_resume():
    with pytest.raises(NotReady, match="no job train closed a round"):
        console_of(("1", "train", "FINISHED:ABORTED"), logs={"1": log_of("too few")}).unfinished("train")


NOT_THERE = {"logs": {}, "unavailable": {"server": "server log not available for this job"}}


@pytest.mark.parametrize("reply", [RuntimeError("not authorized"), NOT_THERE])
def test_a_job_whose_log_cannot_be_read_is_not_passed_over_for_an_older_one(reply):
    """Who may not read it, of another lead's job say, does not know whether it closed rounds: the server does."""

    def read(job, target):
        if job == "2":
            return {"logs": {target: log_of("sum")}}
        if isinstance(reply, Exception):
            raise reply
        return reply

    told = []
    console = console_of(("3", "train", "FINISHED:ABORTED"), ("2", "train", "FINISHED:ABORTED"))
    console._session.get_job_logs = read
    assert console.unfinished("train", tell=told.append) == "3"
    assert "no log of job 3" in told[0]
    with pytest.raises(JobFailed, match="no log of job 3"):
        console.log("3")


@pytest.mark.parametrize(
    ("jobs", "problem"),
    [
        ([], "no job train ran yet"),
        ([("1", "train", "FINISHED:COMPLETED")], "the last one completed"),
        ([("1", "train", "RUNNING")], "job 1 is RUNNING"),
    ],
)
def test_what_cannot_be_resumed_is_refused(jobs, problem):
    with pytest.raises(NotReady, match=problem):
        console_of(*jobs).unfinished("train")


@pytest.mark.parametrize(
    ("status", "over"),
    [
        ("SUBMITTED", False),
        ("RUNNING", False),
        ("FINISHED:COMPLETED", True),
        ("FINISHED:ABORTED", True),
        ("ABANDONED", True),
    ],
)
def test_which_states_are_final(status, over):
    assert JobState("1", "train", status, "", "").over is over


@pytest.mark.parametrize("right", ["submit", "abort", "download", "log"])
def test_who_lacks_the_right_is_not_told_to_mend_the_job(right, tmp_path):
    def refuse(*_args, **_options):
        raise RuntimeError("user not authorized for the action 'x'")

    calls = dict.fromkeys(("submit_job", "abort_job", "download_job_result", "get_job_logs"), refuse)
    console = Console(SimpleNamespace(**calls))
    with pytest.raises(JobFailed, match="not authorized") as caught:
        getattr(console, right)(tmp_path if right == "submit" else ONE)
    assert "the operator" in caught.value.remedy
