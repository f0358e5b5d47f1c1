"""Processes that we started, by pid and start time; no signal goes to any other.

A pid alone says nothing after a reboot or a wrap-around, so the start time is recorded beside it and compared before every
signal. The record survives us: `consortium down` finds the processes of an `up` that was killed.
"""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from silo_app import durable

__all__ = ["Process", "launch", "recorded", "stop"]

_START_TOLERANCE_S = 1.0


@dataclass(frozen=True)
class Process:
    """A process of ours; `started` is its start in seconds since 1970, as the kernel says."""

    name: str
    pid: int
    started: float
    command: tuple[str, ...]
    log: str

    @property
    def alive(self) -> psutil.Process | None:
        """Return the living process, or None if it is gone or the pid is now another's."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < _START_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def launch(
    records: Path, name: str, command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str]
) -> Process:
    """Start a process in a session of its own, with its output appended to `log`, and record it."""
    with log.open("ab") as output:
        log.chmod(durable.PRIVATE)
        child = subprocess.Popen(
            list(command),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | dict(environment),
        )
    process = Process(name, child.pid, psutil.Process(child.pid).create_time(), tuple(command), str(log))
    durable.write_text(durable.private_folder(records) / f"{name}.json", json.dumps(asdict(process)))
    return process


def recorded(records: Path) -> dict[str, Process]:
    """Return the processes that were started and not stopped, by name."""
    found = {}
    for file in sorted(records.glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            content = json.loads(file.read_text(encoding="utf-8"))
            found[file.stem] = Process(**{**content, "command": tuple(content["command"])})
    return found


def stop(records: Path, processes: Sequence[Process], *, patience_s: float = 10.0) -> None:
    """End processes and all that they started: first asked, then killed after `patience_s`."""
    family: dict[int, psutil.Process] = {}
    for process in processes:
        alive = process.alive
        if alive is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family |= {child.pid: child for child in alive.children(recursive=True)}
            family[alive.pid] = alive
    for member in family.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            member.terminate()
    _, stubborn = psutil.wait_procs(list(family.values()), timeout=patience_s)
    for member in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(stubborn, timeout=patience_s)
    for process in processes:
        (records / f"{process.name}.json").unlink(missing_ok=True)


def wait_until_dead(process: Process, timeout_s: float) -> bool:
    """Return whether the process ended in time."""
    end = time.monotonic() + timeout_s
    while process.alive is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
