"""What a federation refuses before it starts anything; starting for real is tests/federation."""

import json
import socket
import subprocess
import sys

import psutil
import pytest

from provisioning import parts, processes
from provisioning.federation import Federation
from provisioning.supervisor import Record, State
from silo_app.errors import CertificateMissing, ConfigInvalid, NotReady, PortTaken, ProcessFailed


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a process would have been started")

    monkeypatch.setattr(processes, "start", refuse)


def test_a_folder_without_a_federation_is_not_ready(tmp_path):
    with pytest.raises(NotReady, match="no federation was provisioned"):
        Federation.load(tmp_path)


def test_a_name_that_is_not_in_it_is_refused_with_those_that_are(federation):
    with pytest.raises(ConfigInvalid, match="'hospital-x'") as caught:
        federation.start("hospital-x")
    assert "hospital-a.index" in caught.value.remedy
    with pytest.raises(ConfigInvalid):
        federation.kit("../etc")


def test_a_missing_certificate_is_named_before_anything_starts(federation):
    (federation.kit("hospital-b") / "startup" / "client.crt").unlink()
    with pytest.raises(CertificateMissing, match=r"client\.crt is missing") as caught:
        federation.up()
    assert caught.value.where == str(federation.kit("hospital-b"))


def test_a_taken_port_is_refused_before_anything_starts(federation):
    port = federation.consortium.server.port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with pytest.raises(PortTaken, match=f"port {port} is taken by process"):
            federation.up()


def test_a_site_that_its_own_script_runs_is_not_started_twice(federation, tmp_path):
    script = tmp_path / "sub_start.sh"
    script.write_text("sleep 60\n:\n")
    with subprocess.Popen(["/bin/bash", str(script)], start_new_session=True) as daemon:
        (federation.kit("hospital-a") / "daemon_pid.fl").write_text(f"{daemon.pid}\n")
        with pytest.raises(ProcessFailed, match=rf"start\.sh runs it already \(process {daemon.pid}\)"):
            federation.start("hospital-a")
        for child in psutil.Process(daemon.pid).children():
            child.kill()
        daemon.kill()


def test_nothing_runs_at_first(federation):
    found = federation.status()
    assert {part.state for part in found} == {"stopped"}
    assert [part.name for part in found][:3] == ["server", "anchor", "hospital-a"]
    assert federation.pids("hospital-a") == []
    assert federation.logs() == []
    assert federation.down() == []


def test_a_process_that_ended_by_itself_is_shown_as_failed(federation):
    gone = State(pid=1, created=0.0)
    record = Record(name="anchor", token="none", log="", supervisor=gone, process=gone, last_exit=1, ended=True)
    folder = federation.root / ".run"
    folder.mkdir()
    content = {**record.__dict__, "supervisor": gone.__dict__, "process": gone.__dict__}
    (folder / "anchor.json").write_text(json.dumps(content))
    (anchor,) = [part for part in federation.status(ask_server=False) if part.name == "anchor"]
    assert (anchor.state, anchor.last_exit, anchor.pid) == ("failed", 1, None)


def test_what_fails_while_starting_is_told_with_its_log_and_nothing_is_left(federation, monkeypatch):
    monkeypatch.undo()
    found = parts.parts(federation.consortium, federation.root)
    command = (sys.executable, "-c", "print('no such module'); raise SystemExit(7)")
    broken = [parts.Part(**{**part.__dict__, "command": command, "before": ()}) for part in found[:1]]
    monkeypatch.setattr(parts, "parts", lambda *_: broken)
    with pytest.raises(ProcessFailed, match=r"ended with 7 before it was ready[\s\S]*no such module"):
        federation.up(wait=20)
    assert federation.pids("server") == []


def test_down_ends_also_who_has_left_since_it_was_started(federation, monkeypatch, make_consortium):
    monkeypatch.undo()
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    (leaver,) = [part for part in parts.parts(federation.consortium, federation.root) if part.name == "hospital-b"]
    record = processes.start(
        leaver.name,
        list(command),
        folder=leaver.kit,
        log=leaver.log,
        run=federation.root / ".run",
        environment=parts.environment(2),
        restart=True,
    )
    try:
        Federation(federation.root, make_consortium("hospital-a")).save()
        told: list[str] = []
        Federation.load(federation.root).down(told.append)
        assert told == ["hospital-b: ended"]
        assert processes.living([record]) == []
        assert not list((federation.root / ".run").iterdir())
    finally:
        processes.end([record], grace=0)
