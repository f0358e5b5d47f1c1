"""The keeper: one job runs, whatever the server's list says."""

import shutil
from pathlib import Path

import pytest

from silo_app.errors import ConfigInvalid, JobFailed, ServerUnreachable
from silo_app.flare import keeper
from silo_app.flare.console import JobState


class Server:
    """A server's jobs: what it lists, and what it has a process of."""

    def __init__(self):
        self.listed: list[JobState] = []
        self.processes: set[str] = set()
        self.submitted = 0
        self.away = False

    def submit(self, folder):
        assert (folder / "meta.json").is_file()
        self.submitted += 1
        self.starts(f"job-{self.submitted}")
        return f"job-{self.submitted}"

    def starts(self, job, status="RUNNING", *, name="search"):
        self.listed.insert(0, JobState(job, name, status, "", ""))
        if status == "RUNNING":
            self.processes.add(job)

    def jobs(self, *, limit):
        assert limit >= 100
        return list(self.listed)

    def running(self):
        if self.away:
            raise ConnectionError
        return set(self.processes)

    def abort(self, job):
        self.processes.discard(job)
        self.listed = [one for one in self.listed if one.job != job]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "search"
    made.mkdir()
    (made / "meta.json").write_text("{}")
    return made


def looks(server, folder, times):
    watch, said = keeper.Watch(), []
    for _ in range(times):
        keeper.step(server, folder, watch, said.append)
    return said


def test_a_job_that_is_not_there_is_submitted_once(folder):
    server = Server()
    server.starts("other", name="train")
    assert looks(server, folder, 5) == ["search was not running: submitted as job-1"]


def test_a_job_that_is_about_to_start_is_waited_for(folder):
    server = Server()
    server.starts("slow", "SUBMITTED")
    assert looks(server, folder, 10) == []


def test_a_job_that_is_listed_but_has_no_process_is_not_believed_for_long(folder):
    server = Server()
    server.starts("stale")
    server.processes.clear()
    assert looks(server, folder, 2) == []
    assert looks(server, folder, 5) == ["search was not running: submitted as job-1"]


def test_a_job_that_has_ended_is_submitted_again(folder):
    server = Server()
    server.starts("ended", "FINISHED:ABNORMAL")
    assert looks(server, folder, 3) == ["search was not running: submitted as job-1"]


def test_of_two_the_newest_stays(folder):
    server = Server()
    server.starts("old")
    server.starts("new")
    assert looks(server, folder, 3) == ["search ran twice: ended old, kept new"]
    assert server.processes == {"new"}


def test_a_server_that_goes_away_is_waited_for(folder, tmp_path, monkeypatch):
    server, opened, said = Server(), [], []

    class Opening:
        def __enter__(self):
            opened.append(1)
            if len(opened) in {2, 3}:
                raise ServerUnreachable("nobody answers", remedy="wait")
            server.away = False
            return server

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(keeper.Console, "open", lambda _kit: Opening())
    waits = iter(range(12))

    def ended(_seconds):
        number = next(waits, None)
        if number == 3:
            server.away = True
            server.processes.clear()
            server.listed.clear()
        return number is None

    keeper.keep(tmp_path, folder, tell=said.append, ended=ended)
    assert said == [
        "search was not running: submitted as job-1",
        "the server does not answer: nobody answers",
        "search was not running: submitted as job-2",
    ]


def test_a_server_that_refuses_the_job_is_asked_again(folder, tmp_path, monkeypatch):
    class Refusing(Server):
        def submit(self, folder):
            raise JobFailed("no", remedy="none")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(keeper.Console, "open", lambda _kit: Refusing())
    waits, said = iter(range(6)), []
    keeper.keep(tmp_path, folder, tell=said.append, ended=lambda _seconds: next(waits, None) is None)
    assert said[:2] == ["no", "no"]


def test_a_job_with_a_wrong_setting_is_refused_and_not_tried_for_ever(tmp_path):
    folder = tmp_path / "search"
    shutil.copytree(Path(__file__).parents[2] / "jobs" / "search", folder)
    file = folder / "app" / "config" / "config_fed_server.json"
    file.write_text(file.read_text().replace("silo_budget_ms", "silo_budget"))
    with pytest.raises(ConfigInvalid, match="did you mean silo_budget_ms"):
        keeper.keep(tmp_path, folder, tell=lambda _line: None, ended=lambda _seconds: False)
