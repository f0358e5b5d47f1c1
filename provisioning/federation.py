"""A whole consortium on one machine, as real processes over mutual TLS: for the demo, for tests, for development."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from provisioning import processes
from provisioning.kits import FACTS, Facts
from provisioning.processes import Process
from silo_app.errors import CertificateMissing, NotReady, PortTaken, ProcessFailed

__all__ = ["Federation", "Status"]

_LOG = "process.log"
_INDEX = "-index"
_START_LIMIT_S = 90.0
_LEFT_RUNNING_S = "30"
"""How long a job whose site vanished stays RUNNING after its last round (NVFlare's default: 900 s)."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """One process as `consortium status` shows it."""

    name: str
    role: str
    running: bool
    ready: bool
    pid: int | None
    up_s: float | None
    memory_mb: float | None


class Federation:
    """What `consortium provision` made in one folder, and the processes that run from it."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder.resolve()
        self.facts = facts
        self._records = self.folder / ".run"

    @classmethod
    def load(cls, folder: Path) -> "Federation":
        """Open a provisioned folder. Raises `NotReady`."""
        try:
            return cls(folder, json.loads((folder / FACTS).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NotReady(
                f"{folder} holds no consortium",
                remedy="Make one first: `consortium provision provisioning/consortium.yaml --out FOLDER`.",
            ) from None

    @property
    def server(self) -> str:
        """The server's name, which is its host's."""
        return str(self.facts["server"]["name"])

    @property
    def silos(self) -> list[str]:
        """The silos' names."""
        return [silo["name"] for silo in self.facts["silos"]]

    @property
    def sites(self) -> list[str]:
        """The names of all NVFlare sites: the anchor and the silos."""
        return [self.facts["anchor"], *self.silos]

    @property
    def admin_kit(self) -> Path:
        """The startup kit of the first researcher."""
        return self.kit(self.facts["researchers"][0])

    def kit(self, name: str) -> Path:
        """Return a participant's startup kit."""
        return self.folder / name

    def up(self, tell: Tell = lambda _: None) -> None:
        """Start everything that does not run, and wait until it is ready.

        Raises `PortTaken`, `CertificateMissing`, or `ProcessFailed` with the end of the log of what failed.
        """
        self.check()
        self.start(self.server, tell)
        for name in self.sites:
            self.start(name, tell, wait=False)
        for name in self.sites:
            self._wait_ready(name, tell)

    def start(self, name: str, tell: Tell = lambda _: None, *, wait: bool = True) -> None:
        """Start one participant (a silo's index process too) unless it runs."""
        if name not in (self.server, *self.sites):
            raise NotReady(f"there is no {name!r}", remedy=f"There are: {', '.join((self.server, *self.sites))}.")
        running = self.running()
        if name == self.server and name not in running:
            self._check_port()
        if name not in running:
            self._launch(name, self._nvflare(name))
            tell(f"started {name}")
        if name in self.silos and name + _INDEX not in running:
            self._launch(name + _INDEX, [sys.executable, "-m", "silo_app.cli.main", "serve", "--silo", str(self.kit(name))])
        if wait:
            self._wait_ready(name, tell)

    def down(self, tell: Tell = lambda _: None) -> None:
        """End every process of this folder, and only those."""
        known = processes.recorded(self._records)
        for name, process in known.items():
            tell(f"{name}: {'stopping' if process.alive else 'was not running'}")
        processes.stop(self._records, list(known.values()))

    def stop(self, name: str, *, patience_s: float = 10.0) -> None:
        """End one participant's processes."""
        known = processes.recorded(self._records)
        processes.stop(self._records, [known[n] for n in (name, name + _INDEX) if n in known], patience_s=patience_s)

    def running(self) -> dict[str, Process]:
        """Return the living processes by name; a silo `x` has `x` (NVFlare) and `x-index`."""
        return {name: p for name, p in processes.recorded(self._records).items() if p.alive is not None}

    def pid(self, name: str) -> int:
        """Return the pid of a living process. Raises `NotReady`."""
        try:
            return self.running()[name].pid
        except KeyError:
            raise NotReady(f"{name} does not run", remedy="Start it: `consortium up`.") from None

    def status(self) -> list[Status]:
        """Return the state of everything that belongs here."""
        running = self.running()
        names = [self.server, *self.sites, *(silo + _INDEX for silo in self.silos)]
        return [self._status(name, running.get(name)) for name in names]

    def log(self, name: str) -> Path:
        """Return a process's log file."""
        return self.kit(name.removesuffix(_INDEX)) / ("index.log" if name.endswith(_INDEX) else _LOG)

    def check(self) -> None:
        """Raise `CertificateMissing` if a kit is not whole."""
        for name in (self.server, *self.sites):
            stem = "server" if name == self.server else "client"
            for file in (f"{stem}.crt", f"{stem}.key", "rootCA.pem"):
                path = self.kit(name) / "startup" / file
                if not path.is_file():
                    raise CertificateMissing(
                        f"the startup kit of {name} has no {file}",
                        where=str(path),
                        remedy=f"Remove {self.kit(name)} and run `consortium provision` again: it makes what is missing.",
                    )

    def _nvflare(self, name: str) -> list[str]:
        kind, role, config = ("server", "server_train", "fed_server.json")
        extra: list[str] = []
        if name != self.server:
            kind, role, config = ("client", "client_train", "fed_client.json")
            extra = [f"uid={name}"]
        organisation = self.facts["organisations"].get(name, "coordinator")
        settings = ["secure_train=true", *extra, f"org={organisation}", "config_folder=config"]
        module = f"nvflare.private.fed.app.{kind}.{role}"
        return [sys.executable, "-u", "-m", module, "-m", str(self.kit(name)), "-s", config, "--set", *settings]

    def _launch(self, name: str, command: list[str]) -> None:
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": _LEFT_RUNNING_S,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "MALLOC_ARENA_MAX": "4",
        }
        log = self.log(name)
        processes.launch(self._records, name, command, cwd=log.parent, log=log, environment=environment)

    def _check_port(self) -> None:
        port = int(self.facts["server"]["port"])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise PortTaken(
                    f"port {port} is in use{_owner_of(port)}",
                    remedy="End that process, or provision another folder with another server.port (0 finds a free one).",
                ) from None

    def _wait_ready(self, name: str, tell: Tell) -> None:
        end = time.monotonic() + _START_LIMIT_S
        while not self._ready(name):
            if name not in self.running() or time.monotonic() > end:
                raise ProcessFailed(
                    f"{name} did not come up; the end of its log:\n{_tail(self.log(name))}",
                    where=str(self.log(name)),
                    remedy="Correct what the log says, then `consortium up` again.",
                )
            time.sleep(0.1)
        tell(f"{name} is ready")

    def _ready(self, name: str) -> bool:
        if name == self.server:
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex(("127.0.0.1", int(self.facts["server"]["port"]))) == 0
        if name.endswith(_INDEX):
            return True
        return any("Successfully registered client" in line for line in self._lines_since_start(name))

    def _lines_since_start(self, name: str) -> Iterable[str]:
        process = self.running().get(name)
        if process is None:
            return []
        text = self.log(name).read_text(encoding="utf-8", errors="replace")
        start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.started))
        return (line for line in text.splitlines() if line[:19] >= start)

    def _status(self, name: str, process: Process | None) -> Status:
        role = "server" if name == self.server else "index" if name.endswith(_INDEX) else "site"
        alive = process.alive if process else None
        if process is None or alive is None:
            return Status(name, role, running=False, ready=False, pid=None, up_s=None, memory_mb=None)
        try:
            family = [alive, *alive.children(recursive=True)]
            memory = sum(member.memory_info().rss for member in family) / 1e6
        except psutil.NoSuchProcess:
            memory = 0.0
        up = time.time() - process.started
        return Status(
            name, role, running=True, ready=self._ready(name), pid=process.pid, up_s=round(up, 1), memory_mb=round(memory, 1)
        )


def _owner_of(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return ""


def _tail(file: Path, lines: int = 15) -> str:
    if not file.is_file():
        return "(no log)"
    return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
