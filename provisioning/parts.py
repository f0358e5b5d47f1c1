"""The processes of a federation: what each is called, how it is started, and how we know that it is ready."""

import importlib.util
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import silo_app
from provisioning import ports
from provisioning.consortium import SERVER, Consortium
from silo_app.config import SiloConfig, SiloHome, read_yaml

__all__ = ["Part", "environment", "parts"]

INDEX_SUFFIX = ".index"
_SILO_COMMAND = "silo_app.cli.main"
_LEFT_RUNNING = "30"
"""Seconds that a job whose site vanished stays RUNNING after its last round (NVFlare's default: 900)."""


@dataclass(frozen=True)
class Part:
    """One process: the server, a site's NVFlare process, a silo's index process, or what keeps a job running."""

    name: str
    """`server`, the site's name, the silo's name with `.index`, or `keep-` with a job's name."""
    participant: str
    kit: Path
    command: tuple[str, ...]
    log: Path
    address: tuple[str, int] | None = None
    socket: Path | None = None
    said_when_ready: str = ""
    before: tuple[str, ...] = ()
    """A short command to run before every start."""

    def is_ready(self) -> bool:
        """Return whether it does its work: it said so in its log, and it accepts connections where it should."""
        if self.said_when_ready and self.said_when_ready not in _content(self.log):
            return False
        if self.address and not ports.is_open(*self.address):
            return False
        return self.socket is None or _accepts(self.socket)


def parts(consortium: Consortium, root: Path) -> list[Part]:
    """Return every process of a federation that lies in `root`, in starting order."""
    sites = [(consortium.anchor, consortium.server.organisation)]
    sites += [(silo.name, silo.org) for silo in consortium.silos]
    found = [_server(consortium, root / SERVER), *(_site(root / name, organisation) for name, organisation in sites)]
    if has_silo_command():
        found += [_index(root / name) for name in consortium.silo_names]
        found += [_keeper(root / consortium.people[0].name, job) for job in consortium.keep]
    return found


def has_silo_command() -> bool:
    """Return whether the `silo` command is installed beside us."""
    return importlib.util.find_spec(_SILO_COMMAND) is not None


def _server(consortium: Consortium, kit: Path) -> Part:
    options = ("secure_train=true", f"org={consortium.server.organisation}", "config_folder=config")
    return Part(
        name=SERVER,
        participant=SERVER,
        kit=kit,
        command=_nvflare("nvflare.private.fed.app.server.server_train", kit, "fed_server.json", options),
        log=kit / "log" / "server.txt",
        address=(consortium.server.host, consortium.server.port),
        said_when_ready="Server started",
        before=(sys.executable, "-m", "provisioning.stale_jobs", str(kit)),
    )


def _site(kit: Path, organisation: str) -> Part:
    options = ("secure_train=true", f"uid={kit.name}", f"org={organisation}", "config_folder=config")
    return Part(
        name=kit.name,
        participant=kit.name,
        kit=kit,
        command=_nvflare("nvflare.private.fed.app.client.client_train", kit, "fed_client.json", options),
        log=kit / "log" / "site.txt",
        said_when_ready="Successfully registered client:",
    )


def _index(kit: Path) -> Part:
    return Part(
        name=kit.name + INDEX_SUFFIX,
        participant=kit.name,
        kit=kit,
        command=(sys.executable, "-m", _SILO_COMMAND, "serve", "--silo", str(kit)),
        log=kit / "log" / "index.txt",
        socket=_silo_home(kit).index_socket,
    )


def _keeper(kit: Path, job: str) -> Part:
    return Part(
        name=f"keep-{job}",
        participant=kit.name,
        kit=kit,
        command=(
            sys.executable,
            "-m",
            _SILO_COMMAND,
            "job",
            "keep",
            str(kit / "transfer" / "jobs" / job),
            "--admin",
            str(kit),
        ),
        log=kit / "log" / f"keep-{job}.txt",
        said_when_ready=f"keeping {job} running",
    )


def _silo_home(kit: Path) -> SiloHome:
    return SiloHome(kit=kit, config=SiloConfig.model_validate(read_yaml(kit / "local" / "silo.yaml")))


def _nvflare(module: str, kit: Path, settings: str, options: tuple[str, ...]) -> tuple[str, ...]:
    # The command of the kit's own startup/sub_start.sh.
    return (sys.executable, "-u", "-m", module, "-m", str(kit), "-s", settings, "--set", *options)


def environment(silos: int) -> Mapping[str, str]:
    """Return what every process is started with.

    NVFlare starts its job processes with the same Python, but scripts look for `python3` on PATH. Silos that share a
    machine share its cores.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NVFL_", "COV_"))}
    python = str(Path(sys.executable).parent)
    source = str(Path(silo_app.__file__).parent.parent)
    threads = str(max(1, (os.cpu_count() or 1) // max(1, silos)))
    return {
        "OMP_NUM_THREADS": threads,
        "MALLOC_ARENA_MAX": "4",
        "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": _LEFT_RUNNING,
        **inherited,
        "PATH": os.pathsep.join([python, inherited.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([source, *filter(None, [inherited.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }


def _content(log: Path) -> str:
    return log.read_text(errors="replace") if log.is_file() else ""


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
