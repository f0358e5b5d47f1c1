"""Keeps one process running, and writes down which: `python -m provisioning.supervisor`, its orders on stdin.

It is a process of its own, so that the one who ordered it may go; it knows nothing of NVFlare but the two files by
which NVFlare's administrators ask for a stop or a restart (startup/sub_start.sh of a kit does the same).
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from silo_app import durable

__all__ = ["Orders", "Record", "State", "stamp"]

_TICK = 0.25
_GRACE = 10.0
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 15.0)
_SETTLED = 300.0
_LOG_LIMIT = 20_000_000


@dataclass(frozen=True)
class Orders:
    """What to run, and where to write it down."""

    name: str
    command: list[str]
    folder: str
    log: str
    record: str
    token: str
    """Stands in the environment of everything that is started: so it is found again, whoever its parent is."""
    restart: bool = True
    before: list[str] = field(default_factory=list)
    """A short command to run before every start, or nothing."""


@dataclass(frozen=True)
class State:
    """A process that lives or lived: its number means nothing without the time at which it began."""

    pid: int
    created: float


@dataclass(frozen=True)
class Record:
    """What is known of one supervised process; written to `Orders.record` at every change."""

    name: str
    token: str
    log: str
    supervisor: State
    process: State | None = None
    restarts: int = 0
    last_exit: int | None = None
    """How the process last ended: its exit status, or minus the signal's number."""
    ended: bool = False
    """Nothing runs any more, and nothing will be started again."""

    @classmethod
    def read(cls, file: Path) -> "Record":
        """Read a record that a supervisor wrote."""
        content = json.loads(file.read_text())
        process = content.pop("process")
        supervisor = State(**content.pop("supervisor"))
        return cls(supervisor=supervisor, process=State(**process) if process else None, **content)


def stamp(pid: int) -> State:
    """Return the state of a living process. Raises `psutil.NoSuchProcess`."""
    return State(pid=pid, created=psutil.Process(pid).create_time())


class _Supervisor:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.me = stamp(os.getpid())
        self.stopping = False
        self.restarts = 0
        self.last_exit: int | None = None
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def run(self) -> None:
        self._write(None)
        recent = 0
        while not self.stopping:
            began = time.monotonic()
            asked_to_end = self._run_once()
            recent = 0 if time.monotonic() - began > _SETTLED else recent + 1
            if self.stopping or asked_to_end or not self.orders.restart or recent > len(_BACKOFF):
                break
            self.restarts += 1
            self._write(None)
            self._sleep(_BACKOFF[recent - 1])
        self._write(None, ended=True)

    def _run_once(self) -> bool:
        """Run the process until it ends; return whether an administrator asked for the end."""
        for name in ("shutdown.fl", "restart.fl"):
            (Path(self.orders.folder) / name).unlink(missing_ok=True)
        with Path(self.orders.log).open("ab") as log:
            if self.orders.before:
                subprocess.run(self.orders.before, cwd=self.orders.folder, stdout=log, stderr=log, check=False)
            process = subprocess.Popen(self.orders.command, cwd=self.orders.folder, stdout=log, stderr=log)
            self._write(stamp(process.pid))
            asked_since = None
            while process.poll() is None:
                time.sleep(_TICK)
                self._trim_log()
                if self.stopping:
                    self._end(process)
                elif not self._asked():
                    asked_since = None
                elif asked_since is None:
                    asked_since = time.monotonic()
                elif time.monotonic() - asked_since > _GRACE:
                    self._end(process)
        self.last_exit = process.returncode
        return (Path(self.orders.folder) / "shutdown.fl").exists()

    def _asked(self) -> bool:
        folder = Path(self.orders.folder)
        return (folder / "shutdown.fl").exists() or (folder / "restart.fl").exists()

    @staticmethod
    def _end(process: "subprocess.Popen[bytes]") -> None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stopping:
            time.sleep(_TICK)

    def _trim_log(self) -> None:
        # The process appends, so after a truncation it goes on at the start.
        log = Path(self.orders.log)
        if log.stat().st_size > _LOG_LIMIT:
            durable.write_bytes(log.with_suffix(".1" + log.suffix), log.read_bytes())
            os.truncate(log, 0)

    def _write(self, process: State | None, *, ended: bool = False) -> None:
        record = Record(
            name=self.orders.name,
            token=self.orders.token,
            log=self.orders.log,
            supervisor=self.me,
            process=process,
            restarts=self.restarts,
            last_exit=self.last_exit,
            ended=ended,
        )
        durable.write_text(Path(self.orders.record), json.dumps(asdict(record), indent=1))


def main() -> None:
    """Read the orders from stdin, leave the one who gave them, and follow them until told to stop."""
    orders = Orders(**json.load(sys.stdin))
    os.umask(0o077)
    if os.fork():
        os._exit(0)
    os.setsid()
    _detach(Path(orders.log))
    _Supervisor(orders).run()


def _detach(log: Path) -> None:
    for number in (0, 1, 2):
        os.close(number)
    os.open(os.devnull, os.O_RDONLY)
    os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, durable.PRIVATE)
    os.dup2(1, 2)


if __name__ == "__main__":
    main()
