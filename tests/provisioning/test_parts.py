import os
import socket
import sys
from pathlib import Path

from provisioning import parts
from provisioning.parts import Part


def test_every_process_of_a_federation_is_named_once(provisioned):
    found = parts.parts(provisioned.consortium, provisioned.root)
    names = [part.name for part in found]
    assert names[:4] == ["server", "anchor", "hospital-a", "hospital-b"]
    assert names[4:] == ["hospital-a.index", "hospital-b.index"]
    assert {part.participant for part in found} == {"server", "anchor", "hospital-a", "hospital-b"}


def test_a_site_is_started_as_its_own_script_would(provisioned):
    (site,) = [part for part in parts.parts(provisioned.consortium, provisioned.root) if part.name == "hospital-a"]
    script = (site.kit / "startup" / "sub_start.sh").read_text()
    (line,) = [line for line in script.splitlines() if line.strip().startswith('exec "$PYTHON"')]
    ordered = line.replace('exec "$PYTHON"', sys.executable).replace('"$WORKSPACE"', str(site.kit)).split()
    assert list(site.command) == ordered


def test_without_the_silo_command_there_are_no_index_processes(provisioned, monkeypatch):
    monkeypatch.setattr(parts, "has_silo_command", lambda: False)
    names = [part.name for part in parts.parts(provisioned.consortium, provisioned.root)]
    assert names == ["server", "anchor", "hospital-a", "hospital-b"]


def test_the_environments_python_comes_first(monkeypatch):
    monkeypatch.setenv("PATH", "/somewhere")
    monkeypatch.setenv("NVFL_WORKSPACE", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    made = parts.environment(3)
    assert made["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/somewhere"]
    assert "NVFL_WORKSPACE" not in made
    assert made["OMP_NUM_THREADS"] == "3"


def test_silos_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [parts.environment(silos)["OMP_NUM_THREADS"] for silos in (1, 3, 16)] == ["8", "2", "1"]


def part(tmp_path, **how) -> Part:
    return Part(name="a", participant="a", kit=tmp_path, command=(), log=tmp_path / "log.txt", **how)


def test_a_process_is_ready_when_it_says_so(tmp_path):
    site = part(tmp_path, said_when_ready="Successfully registered client:")
    assert not site.is_ready()
    site.log.write_text("starting\n")
    assert not site.is_ready()
    site.log.write_text("starting\nSuccessfully registered client:a for project trial.\n")
    assert site.is_ready()


def test_a_server_is_ready_when_its_port_answers_too(tmp_path):
    (tmp_path / "log.txt").write_text("Server started")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = part(tmp_path, said_when_ready="Server started", address=listener.getsockname())
        assert not server.is_ready()
        listener.listen()
        assert server.is_ready()


def test_an_index_is_ready_when_its_socket_accepts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = part(tmp_path, socket=Path("index.sock"))
    assert not index.is_ready()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("index.sock")
        listener.listen()
        assert index.is_ready()
    assert not index.is_ready()
