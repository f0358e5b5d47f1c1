"""A small consortium of its own goes up, loses processes, and goes down: real NVFlare processes over mutual TLS."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from provisioning import kits
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from provisioning.supervisor import Record
from silo_app.errors import PortTaken
from silo_app.flare.console import Console, stage_job

pytestmark = pytest.mark.federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    content = {
        "name": "small",
        "server": {"port": 0},
        "silos": [{"name": "hospital-a"}, {"name": "hospital-b"}],
        "researchers": [{"name": "lead@small.example"}],
    }
    made = kits.provision(Consortium.model_validate(content), tmp_path_factory.mktemp("up") / "consortium")
    said: list[str] = []
    made.up(said.append)
    assert sorted(line for line in said if line.endswith(": ready")) == [
        "anchor: ready",
        "hospital-a.index: ready",
        "hospital-a: ready",
        "hospital-b.index: ready",
        "hospital-b: ready",
        "server: ready",
    ]
    yield made
    made.down()


def until(condition, limit_s=60.0):
    end = time.monotonic() + limit_s
    while not (outcome := condition()):
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.2)
    return outcome


def reached(federation) -> set[str]:
    return {part.name for part in federation.status() if part.reached}


def record(federation, name) -> Record:
    return Record.read(federation.root / ".run" / f"{name}.json")


def test_everything_runs_and_the_server_reaches_every_site(federation):
    found = {part.name: part for part in federation.status()}
    assert {part.state for part in found.values()} == {"running"}
    assert {name for name, part in found.items() if part.reached} == {"anchor", "hospital-a", "hospital-b"}
    assert all(10e6 < part.memory_bytes < 500e6 for part in found.values())


def test_the_server_listens_on_this_machine_alone(federation):
    listening = [
        connection.laddr
        for pid in federation.pids("server")
        for connection in psutil.Process(pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert federation.consortium.server.port in {address.port for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}


def test_up_again_starts_nothing(federation):
    before = federation.pids("hospital-a")
    said: list[str] = []
    federation.up(said.append)
    assert {line.partition(": ")[2] for line in said} == {"running already"}
    assert federation.pids("hospital-a") == before


def test_a_second_server_on_the_port_is_refused_by_name(federation, tmp_path):
    port = federation.consortium.server.port
    content = {"name": "other", "server": {"port": port}, "silos": [{"name": "hospital-x"}]}
    other = kits.provision(Consortium.model_validate(content), tmp_path / "other")
    with pytest.raises(PortTaken, match=rf"port {port} is taken by process {federation.pids('server')[0]}"):
        other.up()
    assert {part.state for part in other.status()} == {"stopped"}


@pytest.mark.parametrize("participant", ["hospital-a", "lead@small.example"])
def test_nvflares_own_check_of_a_kit_passes(federation, participant):
    federation.stop("hospital-a")  # the check starts the site for a moment
    done = subprocess.run(
        [sys.executable, "-m", "nvflare.cli", "preflight-check", "-p", str(federation.kit(participant))],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert "overall: pass" in done.stdout, done.stdout + done.stderr
    federation.start("hospital-a")


def test_a_killed_site_comes_back_by_itself(federation):
    os.kill(federation.pids("hospital-a")[0], signal.SIGKILL)
    until(lambda: record(federation, "hospital-a").restarts == 1)
    until(lambda: "hospital-a" in reached(federation))


def test_a_stopped_silo_stays_down_until_it_is_started(federation):
    federation.stop("hospital-b")
    assert federation.pids("hospital-b") == []
    states = {part.name: part.state for part in federation.status()}
    assert states["hospital-b"] == states["hospital-b.index"] == "stopped"
    assert "hospital-b" not in reached(federation)
    federation.start("hospital-b")
    assert "hospital-b" in until(lambda: reached(federation))


def test_a_server_that_was_killed_forgets_no_site_and_closes_its_jobs(federation):
    with Console.open(federation.admin_kit) as console, stage_job(kits.jobs_folder() / "search", {}) as folder:
        job = console.submit(folder)
        console.wait_running(job, timeout_s=60)
    os.kill(federation.pids("server")[0], signal.SIGKILL)
    until(lambda: record(federation, "server").restarts == 1)
    until(lambda: reached(federation) == {"anchor", "hospital-a", "hospital-b"})
    meta = json.loads((federation.kit("server") / "store" / "jobs" / job / "meta").read_text())
    assert meta["status"] == "FINISHED:ABNORMAL"


def test_down_ends_job_processes_too_even_after_supervisors_were_killed(federation):
    with Console.open(federation.admin_kit) as console, stage_job(kits.jobs_folder() / "search", {}) as folder:
        job = console.submit(folder)
        console.wait_running(job, timeout_s=60)
    until(lambda: len(federation.pids("anchor")) == 3)  # the site, its supervisor, its job process
    os.kill(record(federation, "anchor").supervisor.pid, signal.SIGKILL)
    os.kill(record(federation, "server").supervisor.pid, signal.SIGKILL)
    everything = [pid for part in federation.status(ask_server=False) for pid in federation.pids(part.name)]
    assert len(everything) >= 12
    federation.down()
    assert not [pid for pid in everything if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert {part.state for part in Federation.load(federation.root).status()} == {"stopped"}
