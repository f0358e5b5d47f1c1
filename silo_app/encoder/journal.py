"""What a silo writes down for itself about a job: its own training, the sums of all silos' numbers, its held-out patients.

    <silo home>/jobs/<job>/rounds.jsonl      how this silo trained; the decrypted sums of all silos' numbers
    <silo home>/jobs/<job>/held-out.jsonl    how the global weights do on this silo's held-out patients
    <silo home>/jobs/<job>/scores-*.npz      their scores

Nothing of it leaves the silo.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silo_app import durable

__all__ = ["Journal"]


class Journal:
    """The files of one job in one silo."""

    def __init__(self, folder: Path) -> None:
        self._folder = durable.private_folder(folder)

    def trained(self, training_round: int, numbers: Mapping[str, float]) -> None:
        """Append how this silo trained in a round, from 0."""
        self._append("rounds.jsonl", {"round": training_round, "own": dict(numbers)})

    def opened(self, trained: int, number: int, silos: Sequence[str], sums: Mapping[str, float]) -> None:
        """Append what all silos did together, after `trained` sums of updates; `number` is of the masked rounds."""
        line = {"trained": trained, "exchange": number, "silos": list(silos), "sums": dict(sums)}
        if sums.get("steps"):
            line["loss"] = sums["loss_steps"] / sums["steps"]
        if sums.get("held_out_views"):
            line["held_out_loss"] = sums["held_out_loss_views"] / sums["held_out_views"]
        self._append("rounds.jsonl", line)

    def held_out(self, trained: int, result: Mapping[str, Any]) -> None:
        """Append how the weights after `trained` sums do on this silo's held-out patients, and keep the scores."""
        self._append("held-out.jsonl", {"round": trained, **{k: v for k, v in result.items() if k != "scores"}})
        if "scores" in result:
            Path(result["scores"]).replace(self._folder / f"scores-{trained:04d}.npz")

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
