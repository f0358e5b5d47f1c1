"""Asking a running federation how it is: from our records, from the machine, and from the server itself."""

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from provisioning import processes
from provisioning.authority import nvflare_command
from provisioning.parts import Part
from provisioning.supervisor import Record

__all__ = ["PartStatus", "reached_sites", "status"]

_ASK_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class PartStatus:
    """How one process is."""

    name: str
    state: str
    """running, restarting, failed (ended by itself) or stopped."""
    pid: int | None = None
    since: datetime | None = None
    reached: bool | None = None
    """Whether the server reaches this site now; None where that was not asked or has no meaning."""
    memory_bytes: int = 0
    """Resident memory of the process and everything it started."""
    restarts: int = 0
    last_exit: int | None = None


def status(part: Part, record: Record | None, reached: set[str] | None) -> PartStatus:
    """Return the state of one part; `reached` are the sites that the server reaches."""
    if record is None:
        return PartStatus(name=part.name, state="stopped")
    alive = processes.is_alive(record.process)
    is_site = part.name == part.participant and part.address is None
    return PartStatus(
        name=part.name,
        state=_state(record, alive=alive),
        pid=record.process.pid if alive and record.process else None,
        since=datetime.fromtimestamp(record.process.created, UTC) if alive and record.process else None,
        reached=part.name in reached if is_site and reached is not None else None,
        memory_bytes=sum(_memory(process) for process in processes.living([record])),
        restarts=record.restarts,
        last_exit=record.last_exit,
    )


def _state(record: Record, *, alive: bool) -> str:
    if alive:
        return "running"
    return "restarting" if not record.ended and processes.is_alive(record.supervisor) else "failed"


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def reached_sites(admin_kit: Path) -> set[str] | None:
    """Ask the server which sites answer it now, with an administrator's certificate; None if the server is silent."""
    done = subprocess.run(
        [*nvflare_command(), "--format", "json", "system", "status", "--startup-kit", str(admin_kit)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ASK_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        return None
    answer = json.loads(done.stdout)
    return {site["client_name"] for site in answer["data"]["client_status"] if site["status"] != "no_reply"}
