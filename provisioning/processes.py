"""Starting and ending processes so that only what we started is ever signalled.

A process is ours if its record names its number and the time at which it began, or if it carries the record's token in
its environment (so do the job processes that NVFlare starts, even when their parent was killed), or if it descends from
such a process.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import psutil

from provisioning.supervisor import Orders, Record, State
from silo_app import durable
from silo_app.errors import ProcessFailed

__all__ = ["TOKEN", "end", "is_alive", "living", "read_record", "start", "tail"]

TOKEN = "SILOSCOPE_RUN"  # noqa: S105 - the name of an environment variable
_CLOCK_SLACK = 2.0
_START_LIMIT = 30.0
_KILL_LIMIT = 5.0


def start(
    name: str,
    command: list[str],
    *,
    folder: Path,
    log: Path,
    run: Path,
    environment: Mapping[str, str],
    restart: bool,
    before: list[str] | None = None,
) -> Record:
    """Start a process under a supervisor of its own, detached from us; return its record."""
    durable.private_folder(run)
    durable.private_folder(log.parent)
    if log.exists():
        log.replace(log.with_suffix(".1" + log.suffix))
    orders = Orders(
        name=name,
        command=command,
        folder=str(folder),
        log=str(log),
        record=str(run / f"{name}.json"),
        token=secrets.token_hex(16),
        restart=restart,
        before=before or [],
    )
    done = subprocess.run(
        [sys.executable, "-m", "provisioning.supervisor"],
        cwd=folder,
        env={**environment, TOKEN: orders.token},
        input=json.dumps(asdict(orders)),
        capture_output=True,
        text=True,
        timeout=_START_LIMIT,
        check=False,
    )
    if done.returncode == 0:
        return _await_record(orders)
    raise ProcessFailed(
        f"the supervisor ended with {done.returncode}: {done.stderr.strip()[-500:]}",
        where=name,
        remedy="Check the installation with `consortium --version`.",
    )


def _await_record(orders: Orders) -> Record:
    until = time.monotonic() + _START_LIMIT
    while time.monotonic() < until:
        record = read_record(Path(orders.record))
        if record is not None and record.token == orders.token:
            return record
        time.sleep(0.02)
    raise ProcessFailed("the supervisor did not report", where=orders.name, remedy=f"Look at {orders.log}, then try again.")


def read_record(file: Path) -> Record | None:
    """Return a process's record, or None if it was never started."""
    return Record.read(file) if file.is_file() else None


def is_alive(state: State | None) -> bool:
    """Return whether this very process (not another that got its number) still runs."""
    return state is not None and _find(state) is not None


def _find(state: State) -> psutil.Process | None:
    try:
        process = psutil.Process(state.pid)
        same = abs(process.create_time() - state.created) <= _CLOCK_SLACK
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def living(records: Iterable[Record]) -> list[psutil.Process]:
    """Return every living process that belongs to these records: recorded, carrying a token, or descending."""
    records = list(records)
    tokens = {record.token for record in records}
    recorded = [_find(state) for record in records for state in (record.supervisor, record.process) if state]
    roots = [process for process in recorded if process] + [p for p in psutil.process_iter() if _token(p) in tokens]
    found: dict[int, psutil.Process] = {}
    for root in roots:
        found[root.pid] = root
        found |= {child.pid: child for child in _descendants(root)}
    return [process for process in found.values() if _not_a_zombie(process)]


def _token(process: psutil.Process) -> str | None:
    try:
        token: str | None = process.environ().get(TOKEN)
    except (psutil.Error, OSError):
        return None  # another account's process, or one that has just ended
    return token


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return children


def _not_a_zombie(process: psutil.Process) -> bool:
    try:
        zombie: bool = process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    return not zombie


def end(records: Iterable[Record], *, grace: float) -> list[int]:
    """End everything of these records: asked first, killed after `grace` seconds; return the numbers of the killed."""
    records = list(records)
    for process in living(records):
        _signal(process, kill=False)
    until = time.monotonic() + grace
    while time.monotonic() < until:
        if not living(records):
            return []
        time.sleep(0.1)
    killed = [process for process in living(records) if _signal(process, kill=True)]
    psutil.wait_procs(killed, timeout=_KILL_LIMIT)
    return [process.pid for process in killed]


def _signal(process: psutil.Process, *, kill: bool) -> bool:
    # psutil compares the time of creation again before it signals.
    try:
        process.kill() if kill else process.terminate()
    except psutil.Error:
        return False
    return True


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log, at most 64 kB of them."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65536))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
