"""A federation on this machine: its kits, its processes, up, down, status. What the command does, as Python."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from provisioning import certificates, control, parts, ports, processes
from provisioning.certificates import Certificate
from provisioning.consortium import SERVER, Consortium
from provisioning.control import PartStatus
from provisioning.parts import Part
from provisioning.processes import read_record
from provisioning.supervisor import Record
from silo_app import durable
from silo_app.errors import ConfigInvalid, NotReady, ProcessFailed

__all__ = ["Federation", "Tell"]

Tell = Callable[[str], None]
"""Hears what becomes of each process, a line each: "hospital-a: ready"."""

_DESCRIPTION = "federation.json"
_GRACE = 10.0
_POLL = 0.2


def _silent(_line: str) -> None:
    pass


@dataclass(frozen=True)
class Federation:
    """A provisioned federation in the folder `root`."""

    root: Path
    consortium: Consortium

    @classmethod
    def load(cls, root: Path) -> "Federation":
        """Open a federation that was provisioned. Raises `NotReady` if there is none."""
        file = root / _DESCRIPTION
        if not file.is_file():
            raise NotReady(
                f"no federation was provisioned in {root}",
                remedy="Provision one: consortium provision provisioning/consortium.yaml",
            )
        return cls(root=root.resolve(), consortium=Consortium.model_validate(json.loads(file.read_text())))

    def save(self) -> None:
        """Write down the federation, so that `load` finds it."""
        durable.write_text(self.root / _DESCRIPTION, self.consortium.model_dump_json(indent=1) + "\n")

    @property
    def server(self) -> str:
        """The server's name."""
        return SERVER

    @property
    def silos(self) -> list[str]:
        """The names of the silos."""
        return list(self.consortium.silo_names)

    @property
    def admin_kit(self) -> Path:
        """The kit of who submits jobs: the first researcher, or the operator if there is none."""
        return self.kit(self.consortium.people[0].name)

    @property
    def operator_kit(self) -> Path:
        """The kit of who runs the federation."""
        return self.kit(self.consortium.operator.name)

    def kit(self, name: str) -> Path:
        """Return the startup kit of a participant."""
        if name not in self.consortium.participants:
            raise self._unknown(name, self.consortium.participants)
        return self.root / name

    def certificates(self) -> list[Certificate]:
        """Return every participant's certificate. Raises `CertificateMissing`."""
        return [certificates.read(self.kit(name)) for name in self.consortium.participants]

    def up(self, tell: Tell = _silent, *, restart: bool = True, wait: float = 180.0) -> None:
        """Start whatever does not run, and return when all of it does its work.

        If one process fails, everything that this call started is ended again and `ProcessFailed` holds its log's end.
        """
        self._start(self._parts(), tell, restart=restart, wait=wait)

    def start(self, name: str, tell: Tell = _silent, *, restart: bool = True, wait: float = 180.0) -> None:
        """Start one participant (`hospital-a`) or one process (`hospital-a.index`)."""
        self._start(self._named(name), tell, restart=restart, wait=wait)

    def down(self, tell: Tell = _silent, *, grace: float = _GRACE) -> list[int]:
        """End every process of the federation, job processes included; return the numbers of those killed.

        Those of a participant that has left since it was started are among them.
        """
        run = self.root / ".run"
        return self._end(filter(None, map(read_record, sorted(run.glob("*.json")))), tell, grace)

    def stop(self, name: str, tell: Tell = _silent, *, grace: float = _GRACE) -> list[int]:
        """End one participant or one process; return the numbers of those killed."""
        return self._end(self._records(self._named(name)), tell, grace)

    def pids(self, name: str) -> list[int]:
        """Return the processes of a participant or part: its own first, then supervisor, jobs and other children."""
        records = self._records(self._named(name))
        own = [record.process.pid for record in records if record.process]
        others = [process.pid for process in processes.living(records)]
        return [pid for pid in own if pid in others] + [pid for pid in others if pid not in own]

    def status(self, *, ask_server: bool = True) -> list[PartStatus]:
        """Return the state of every process; with `ask_server`, also whether the server reaches each site (seconds)."""
        found = self._parts()
        records = {part.name: self._record(part) for part in found}
        server = records[SERVER]
        running = server is not None and processes.is_alive(server.process)
        reached = control.reached_sites(self.operator_kit) if ask_server and running else None
        return [control.status(part, records[part.name], reached) for part in found]

    def logs(self, name: str = "") -> list[Path]:
        """Return the logs of a participant or part, or of all, as far as they exist."""
        found = self._named(name) if name else self._parts()
        return [part.log for part in found if part.log.is_file()]

    def _parts(self) -> list[Part]:
        return parts.parts(self.consortium, self.root)

    def _named(self, name: str) -> list[Part]:
        found = [part for part in self._parts() if name in {part.name, part.participant}]
        if not found:
            raise self._unknown(name, [part.name for part in self._parts()])
        return found

    def _unknown(self, name: str, known: Iterable[str]) -> ConfigInvalid:
        return ConfigInvalid(f"{name!r} is not in this federation", remedy=f"One of: {', '.join(known)}.")

    def _record(self, part: Part) -> Record | None:
        return read_record(self.root / ".run" / f"{part.name}.json")

    def _records(self, found: Sequence[Part]) -> list[Record]:
        return [record for record in map(self._record, found) if record is not None]

    def _start(self, found: Sequence[Part], tell: Tell, *, restart: bool, wait: float) -> None:
        waiting = [part for part in found if not self._runs(part)]
        for part in waiting:
            if not part.socket:
                certificates.check(part.kit)
                _refuse_run_by_hand(part)
        if any(part.name == SERVER for part in waiting):
            ports.refuse_taken(self.consortium.server.port)
        for part in found:
            if part not in waiting:
                tell(f"{part.name}: running already")
        try:
            for part in waiting:
                self._launch(part, restart=restart)
                tell(f"{part.name}: starting")
            self._await_ready(waiting, tell, wait)
        except BaseException:
            processes.end(self._records(waiting), grace=_GRACE)
            raise

    def _launch(self, part: Part, *, restart: bool) -> None:
        # What an earlier supervisor left behind when it was killed would fight with the new process.
        processes.end(self._records([part]), grace=_GRACE)
        processes.start(
            part.name,
            list(part.command),
            folder=part.kit,
            log=part.log,
            run=self.root / ".run",
            environment=parts.environment(len(self.silos)),
            restart=restart,
            before=list(part.before),
        )

    def _runs(self, part: Part) -> bool:
        record = self._record(part)
        return record is not None and processes.is_alive(record.process)

    def _await_ready(self, waiting: Sequence[Part], tell: Tell, wait: float) -> None:
        left, until = list(waiting), time.monotonic() + wait
        while left:
            for part in list(left):
                self._refuse_failed(part)
                if part.is_ready():
                    left.remove(part)
                    tell(f"{part.name}: ready")
            if left and time.monotonic() > until:
                raise self._failed(left[0], f"not ready after {wait:.0f} s")
            time.sleep(_POLL if left else 0)

    def _refuse_failed(self, part: Part) -> None:
        record = self._record(part)
        if record is None or record.last_exit is None:
            return
        how = f"ended with {record.last_exit}" if record.last_exit >= 0 else f"was ended by signal {-record.last_exit}"
        raise self._failed(part, f"{how} before it was ready")

    def _failed(self, part: Part, how: str) -> ProcessFailed:
        return ProcessFailed(
            f"{how}; the end of its log:\n{processes.tail(part.log, 20)}",
            where=part.name,
            remedy=f"The whole log: {part.log}",
        )

    def _end(self, records: Iterable[Record], tell: Tell, grace: float) -> list[int]:
        records = list(records)
        killed = processes.end(records, grace=grace)
        for record in records:
            with contextlib.suppress(FileNotFoundError):
                (self.root / ".run" / f"{record.name}.json").unlink()
            tell(f"{record.name}: ended")
        return killed


def _refuse_run_by_hand(part: Part) -> None:
    """Two processes of one identity would throw each other out of the federation."""
    note = part.kit / "daemon_pid.fl"  # written by the kit's own startup/start.sh
    with contextlib.suppress(ValueError, FileNotFoundError, psutil.Error):
        daemon = psutil.Process(int(note.read_text()))
        if any("sub_start.sh" in argument for argument in daemon.cmdline()):
            raise ProcessFailed(
                f"its own startup/start.sh runs it already (process {daemon.pid})",
                where=part.name,
                remedy="Stop that with the kit's startup/stop_fl.sh, then start it from here.",
            )
