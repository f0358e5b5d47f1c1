"""What a silo writes down for itself about a job: its own training, the sums of all silos' numbers, its held-out patients.

    <silo home>/jobs/<job>/rounds.jsonl      how this silo trained; the decrypted sums of all silos' numbers
    <silo home>/jobs/<job>/held-out.jsonl    how the global weights do on this silo's held-out patients
    <silo home>/jobs/<job>/scores-*.npz      their scores

    <silo home>/jobs/<job>/running           locked as long as the process that takes part lives

Nothing of it leaves the silo.
"""

import fcntl
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from silo_app import durable
from silo_app.encoder.sharing import SharedMetric, shared

__all__ = ["Journal", "JournalRound", "is_being_written", "read_journal"]


_RUNNING = "running"


class Journal:
    """The files of one job in one silo."""

    def __init__(self, folder: Path) -> None:
        self._folder = durable.private_folder(folder)
        self._shared: list[SharedMetric] = []
        running = os.open(folder / _RUNNING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE)
        fcntl.flock(running, fcntl.LOCK_SH)  # shared: who looks has it alone, for a moment
        self.close = weakref.finalize(self, os.close, running)
        """Say that nothing more is written; a process that dies says so too."""

    def trained(self, training_round: int, numbers: Mapping[str, float]) -> None:
        """Append how this silo trained in a round, from 0."""
        self._append("rounds.jsonl", {"round": training_round, "own": dict(numbers)})

    def opened(self, trained: int, number: int, silos: Sequence[str], sums: Mapping[str, float]) -> None:
        """Append what all silos did together, after `trained` sums of updates; `number` is of the masked rounds."""
        line: dict[str, Any] = {"trained": trained, "exchange": number, "silos": list(silos), "sums": dict(sums)}
        if sums.get("steps") and sums.get("loss_steps"):  # a private job sums no loss
            line["loss"] = sums["loss_steps"] / sums["steps"]
        if sums.get("held_out_known"):
            line["held_out_loss"] = sums["held_out_loss_known"] / sums["held_out_known"]
        self._append("rounds.jsonl", line)
        self._shared += shared(trained, len(silos), sums, line)

    def take_shared(self) -> list[SharedMetric]:
        """Return what all silos agreed to share of the sums opened since last asked."""
        taken, self._shared = self._shared, []
        return taken

    def held_out(self, trained: int, result: Mapping[str, Any]) -> None:
        """Append how the weights after `trained` sums do on this silo's held-out patients, and keep the scores."""
        if "scores" in result:  # made in the job's folder, which may be on another disk
            with durable.replacing(self._folder / f"scores-{trained:04d}.npz") as file:
                file.write(Path(result["scores"]).read_bytes())
            Path(result["scores"]).unlink()
        self._append("held-out.jsonl", {"round": trained, **{k: v for k, v in result.items() if k != "scores"}})

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a+b") as file:
            if file.tell() and _last_byte(file) != b"\n":  # a line that a killed process did not finish
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


@dataclass(frozen=True, kw_only=True)
class JournalRound:
    """What a silo knows of one training round, from 0; None where it does not know it (yet)."""

    round: int
    steps: int | None = None
    """Of this silo's own training."""
    train_seconds: float | None = None
    silos: int | None = None
    """How many silos' updates are in the sum."""
    loss: float | None = None
    """The mean of all silos' training losses over their steps."""
    pooled_held_out_loss: float | None = None
    """Of the weights after this round, over the held-out views of the silos that trained on from them."""
    held_out_loss: float | None = None
    """Of the weights after this round, on this silo's held-out patients."""
    held_out_auc: float | None = None
    """The mean over the findings that have one."""


def is_being_written(folder: Path) -> bool:
    """Return whether the silo still takes part in the job of this journal."""
    try:
        with (folder / _RUNNING).open("r") as file:
            return not durable.try_lock(file.fileno())
    except FileNotFoundError:
        return False


def read_journal(folder: Path) -> list[JournalRound]:
    """Return the rounds that a job's journal knows of, in order; empty if there is no journal.

    A line that is just being written is left for the next time.
    """
    rounds: dict[int, dict[str, Any]] = {}

    def note(number: int, **known: Any) -> None:
        if number >= 0:
            rounds.setdefault(number, {}).update(known)

    for line in _lines(folder / "rounds.jsonl"):
        if (own := line.get("own")) is not None:
            note(line["round"], steps=own.get("steps"), train_seconds=own.get("train_seconds"))
        elif sums := line.get("sums"):  # after `trained` sums; the statistics have none
            trained = line["trained"]
            if "steps" in sums:
                note(trained - 1, loss=line.get("loss"), silos=len(line["silos"]))
                trained -= 1  # losses beside an update are of the weights before it
            if line.get("held_out_loss") is not None:
                note(trained - 1, pooled_held_out_loss=line["held_out_loss"])
    for line in _lines(folder / "held-out.jsonl"):
        areas = list(line.get("auc", {}).values())
        note(line["round"] - 1, held_out_loss=line.get("loss"), held_out_auc=sum(areas) / len(areas) if areas else None)
    return [JournalRound(round=number, **known) for number, known in sorted(rounds.items())]


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
