"""One silo's part in one training job, without NVFlare: join, agree on a key, train rounds, keep the encoder.

The global weights live here as one flat vector; the trainer's child process gets them by file and returns new ones. What
goes out is an encrypted update; what comes in is a sum that only the silos can open.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app import durable
from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.trainer import Trainer
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import NotReady, ProcessFailed, RoundRefused
from silo_app.identity import Identity

__all__ = ["Contribution", "Participation", "RoundOrder", "SumMessage"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SumMessage:
    """The encrypted sum of round `number`: uint8 (bytes,), and whose updates are in it."""

    number: int
    message: NDArray[np.uint8]
    contributors: Sequence[str]


@dataclass(frozen=True)
class RoundOrder:
    """What the server asks for in one round; `last` is the sum to open first (none in round 0)."""

    number: int
    participants: Sequence[str]
    wrapped_key: bytes | None
    last: SumMessage | None


@dataclass(frozen=True)
class Contribution:
    """An encrypted update, uint8 (bytes,), and numbers about how it was made (seconds, steps; no metrics)."""

    message: NDArray[np.uint8]
    report: dict[str, float]


class Participation:
    """The state of one silo in one job; `folder` is private to the job and removed from secrets at its end."""

    def __init__(self, home: SiloHome, *, job: str, folder: Path) -> None:
        self._home = home
        self._job = job
        self._folder = durable.private_folder(folder)
        self._identity = Identity.load(home.kit)
        self._trainer = Trainer.start(home.kit, self._folder, threads=home.config.training.threads)
        self._next_round = 0

    def close(self) -> None:
        """End the trainer and everything that it runs."""
        self._trainer.close()

    def join(self, plan: TrainingPlan) -> bytes:
        """Open the data and the start weights; return the signed announcement. Raises `NotReady` without images."""
        if not self._home.config.training.join:
            raise NotReady("this silo does not take part in training", remedy="Set training.join in silo.yaml.")
        self._plan = plan
        opened = self._opened(plan)
        if not opened["train_views"]:
            raise NotReady("this silo has no images to train on", remedy="Run `silo ingest` first.")
        self._counts = {name: opened[name] for name in ("train_views", "held_out_views", "train_patients")}
        names, shapes = zip(*opened["layout"], strict=True)
        layout = Layout(tuple(names), tuple(tuple(shape) for shape in shapes))
        self._weights = read_vector(Path(opened["weights"]))
        self._session = SiloSession(
            self._job,
            self._identity,
            layout,
            initial=digest_of(self._weights),
            samples=opened["train_views"],
            settings=AggregationSettings(encryption=plan.encryption, bits=plan.field_bits),
            min_silos=max(plan.min_silos, self._home.config.training.min_silos),
            masked=False,  # until the rounds carry the mask bundles; silos then still share one key
        )
        return self._session.announce()

    def agree(self, announcements: Mapping[str, bytes]) -> dict[str, bytes]:
        """Verify everybody's announcement; return the wrapped keys if this silo is the one to make the job's key."""
        return dict(self._session.receive_roster(announcements))

    def round(self, order: RoundOrder) -> Contribution:
        """Open the last sum, train one round from it, and return the encrypted update."""
        if order.wrapped_key is not None:
            self._session.receive_key(order.wrapped_key)
        start = time.monotonic()
        if order.last is not None:
            self._open(order.last)
        opened_s = time.monotonic() - start
        self._require_current(order.number)
        self._note_progress(order.number)
        trained = self._train(order.number)
        start = time.monotonic()
        self._session.begin_round(order.number, dict.fromkeys(order.participants, b""))
        message = self._session.encrypt_update(order.number, trained["vector"] - self._weights)
        return Contribution(
            message=message,
            report={
                "train_seconds": trained["seconds"],
                "encrypt_seconds": round(time.monotonic() - start, 3),
                "open_seconds": round(opened_s, 3),
                "steps": trained["steps"],
                "samples": trained["samples"],
            },
        )

    def finish(self, last: SumMessage) -> EncoderVersion:
        """Open the last sum and keep the result as this silo's current encoder."""
        self._open(last)
        self._note_progress(self._next_round)
        card = {
            "job": self._job,
            "kind": "federated",
            "round": self._next_round,
            "rounds": self._plan.rounds,
            "silos": list(self._session.silos),
            "encryption": self._plan.encryption,
            "seed": self._plan.seed,
            "training": self._plan.training.model_dump(mode="json"),
        }
        saved = self._trainer.request("save", weights=str(self._write("final")), card=card, current=True)
        self.close()
        return EncoderVersion(saved["version"])

    def _opened(self, plan: TrainingPlan) -> dict[str, Any]:
        """Open data and start weights; once more if the trainer crashes, for who cannot join is out of the job."""
        parameters: dict[str, Any] = {"spec": plan.encoder.model_dump(mode="json"), "seed": plan.seed}
        try:
            return self._trainer.request("open", **parameters)
        except ProcessFailed as error:
            _log.warning("the trainer is started again: %s", error.problem)
            return self._trainer.request("open", **parameters)

    def _train(self, number: int) -> dict[str, Any]:
        trained = self._trainer.request(
            "train",
            weights=str(self._write("global")),
            settings=self._plan.training.model_dump(mode="json"),
            round=number,
            rounds=self._plan.rounds,
            seed=self._plan.seed,
        )
        return trained | {"vector": read_vector(Path(trained["weights"]))}

    def _open(self, last: SumMessage) -> None:
        if last.number < self._next_round:
            return  # opened already: the server repeats the sum when it asks again
        if last.number > self._next_round:
            raise RoundRefused(
                f"this silo has weights of round {self._next_round}, the sum is of round {last.number}",
                remedy="It missed a round; it takes part again in the next job.",
            )
        opened = self._session.open_sum(last.number, last.message, last.contributors)
        if opened.update is not None:
            self._weights = self._weights + opened.update
        self._next_round = last.number + 1

    def _require_current(self, number: int) -> None:
        if number != self._next_round:
            raise RoundRefused(
                f"asked to train round {number} with weights of round {self._next_round}",
                remedy="The server must send the sum of the round before; submit the job again.",
            )

    def _note_progress(self, number: int) -> None:
        """Append how well the weights before round `number` do on this silo's held-out patients; stays in the silo."""
        result = self._trainer.request("evaluate", weights=str(self._write("global")))
        folder = durable.private_folder(self._home.root / "jobs" / self._job)
        line = json.dumps({"round": number, **{k: v for k, v in result.items() if k != "scores"}})
        with (folder / "held-out.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if "scores" in result:
            Path(result["scores"]).replace(folder / f"scores-{number:04d}.npz")

    def _write(self, name: str) -> Path:
        path = self._folder / f"{name}.safetensors"
        write_vector(path, self._weights)
        return path
