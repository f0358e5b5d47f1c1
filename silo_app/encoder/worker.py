"""The trainer's child process: `python -m silo_app.encoder.worker KIT FOLDER`, JSON lines in and out.

Requests come on stdin and answers go to what was stdout; anything that a library prints goes to stderr. When the parent
dies, stdin ends and so does this process, also in the middle of training.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import numpy as np

from silo_app import config
from silo_app.cases import EncoderVersion
from silo_app.encoder import checkpoint
from silo_app.encoder.charging import Charging
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import findings_auc
from silo_app.encoder.examine import examine
from silo_app.encoder.losses import known_loss
from silo_app.encoder.model import Encoder, build, layout_of, load_vector, to_vector
from silo_app.encoder.private import train_round_privately
from silo_app.encoder.settings import PrivacyPlan, TrainSettings
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.train import train_round
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import NotReady, SiloscopeError

Progress = Callable[[int, int], None]


class Worker:
    """What a trainer can do; each public method is one operation, its arguments are numbers and file names."""

    def __init__(self, kit: Path, folder: Path) -> None:
        self._home = config.load(kit)
        self._folder = folder
        self._spec: EncoderSpec | None = None
        self._charging: Charging | None = None

    def open(
        self,
        progress: Progress,
        *,
        spec: dict[str, Any],
        seed: int,
        start: str | None = None,
        private: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Load the silo's images and the start weights: drawn from `seed`, or those of the encoder version `start`.

        `private` is a job's privacy plan, training settings, rounds, and how many of them are still to come.
        """
        self._spec = EncoderSpec.model_validate(spec)
        images = load(self._home, self._spec, progress, leave_out=True)
        self._train, self._held_out = images.where(~images.held_out), images.where(images.held_out)
        self._model = build(self._spec, seed)
        if start is not None:
            load_vector(self._model, checkpoint.load(self._home.models, EncoderVersion(start)).vector)
        patients = len(np.unique(self._train.patients))
        self._charging = self._charged(private, patients) if private and patients else None
        return {
            "layout": layout_of(self._model),
            "weights": self._written("start", to_vector(self._model)),
            "train_views": len(self._train),
            "held_out_views": len(self._held_out),
            "train_patients": patients,
            "positives": self._positives(),
        }

    def train(
        self,
        progress: Progress,
        *,
        weights: str,
        settings: dict[str, Any],
        round: int,  # noqa: A002  (the word of the glossary, and of the request)
        rounds: int,
        seed: int,
        job: str = "",
    ) -> dict[str, Any]:
        """Train one round from `weights` and return where the new weights are; `job` pays for a private one."""
        model, images, chosen = self._with(weights), self._opened(self._train), TrainSettings.model_validate(settings)
        if (charging := self._charging) is None:
            outcome = train_round(model, images, chosen, round_number=round, rounds=rounds, seed=seed, progress=progress)
        else:
            charging.pay(job, round)
            outcome = train_round_privately(
                model,
                images,
                chosen,
                charging.planned,
                clip_norm=charging.privacy.clip_norm,
                round_number=round,
                rounds=rounds,
                progress=progress,
            )
        return {
            "weights": self._written("trained", to_vector(model)),
            "steps": outcome.steps,
            "samples": outcome.samples,
            "loss": outcome.loss,
            "seconds": round_seconds(outcome.seconds),
        }

    def evaluate(self, progress: Progress, *, weights: str) -> dict[str, Any]:
        """Return the findings' AUC and loss on the silo's held-out patients, and where the scores are."""
        images = self._opened(self._held_out)
        if not len(images):
            return {"auc": {}, "loss": None, "views": 0}
        _, logits = embed(self._with(weights), images.pixels, progress)
        file = self._folder / "scores.npz"
        names = np.array([str(finding) for finding in self._spec_of().findings])
        np.savez(file, findings=names, logits=logits, targets=images.targets, known=images.known, patients=images.patients)
        return {
            "auc": findings_auc(self._spec_of(), logits, images),
            "loss": known_loss(logits, images.targets, images.known),
            "views": len(images),
            "scores": str(file),
        }

    def save(
        self, progress: Progress, *, weights: str, card: dict[str, Any], current: bool, jobs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Keep `weights` as an encoder version with its model card; `jobs` spent the privacy that the card names."""
        del progress
        if self._charging is not None:
            card = card | {"privacy": self._charging.spent(jobs)}
        version = checkpoint.save(self._home.models, self._spec_of(), read_vector(Path(weights)), card)
        if current:
            checkpoint.set_current(self._home.models, version)
        return {"version": version}

    def examine(self, progress: Progress, *, version: str | None, floors: bool) -> dict[str, Any]:
        """Return what may be told about an encoder version, or the one in use, on the held-out patients (`SiloAnswer`)."""
        answer = examine(self._home, EncoderVersion(version) if version else None, with_floors=floors, progress=progress)
        return answer.model_dump(mode="json")

    def _charged(self, private: dict[str, Any], patients: int) -> Charging:
        plan, settings = PrivacyPlan.model_validate(private["privacy"]), TrainSettings.model_validate(private["settings"])
        charging = Charging(self._home, plan, settings, rounds=private["rounds"], patients=patients)
        charging.require(private["left"])
        return charging

    def _positives(self) -> dict[str, int]:
        counts = (self._train.targets * self._train.known).sum(axis=0)
        return {str(finding): int(count) for finding, count in zip(self._spec_of().findings, counts, strict=True) if count}

    def _spec_of(self) -> EncoderSpec:
        if self._spec is None:
            raise NotReady("the trainer was restarted and has no data", remedy="The silo takes part in the next job.")
        return self._spec

    def _opened(self, images: Images) -> Images:
        self._spec_of()
        return images

    def _with(self, weights: str) -> Encoder:
        self._spec_of()
        load_vector(self._model, read_vector(Path(weights)))
        return self._model

    def _written(self, name: str, vector: Any) -> str:
        file = self._folder / f"{name}.safetensors"
        write_vector(file, vector)
        return str(file)


_TELL_EVERY_S = 0.5
OPERATIONS = ("open", "train", "evaluate", "save", "examine")


def round_seconds(seconds: float) -> float:
    """Return seconds to a millisecond."""
    return round(seconds, 3)


def serve(worker: Worker, requests: SimpleQueue[str], answers: TextIO) -> None:
    """Answer requests until the process ends."""

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= _TELL_EVERY_S:
            told = time.monotonic()
            say({"event": "progress", "done": done, "total": total})

    while True:
        request = json.loads(requests.get())
        op = request.pop("op")
        try:
            if op not in OPERATIONS:
                raise NotReady(f"no operation {op!r}", remedy="This is a bug; report it.")
            say({"answer": getattr(worker, op)(progress, **request)})
        except SiloscopeError as error:
            say({"error": {"code": error.code, "problem": error.problem, "remedy": error.remedy, "where": error.where}})


def main() -> None:
    """Run the child process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    requests: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)  # the parent is gone: nobody wants the rest of this round

    threading.Thread(target=read, daemon=True).start()
    serve(Worker(Path(sys.argv[1]), Path(sys.argv[2])), requests, answers)


if __name__ == "__main__":
    main()
