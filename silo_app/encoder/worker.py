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
from dataclasses import astuple
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from silo_app import config
from silo_app.cases import EncoderVersion
from silo_app.encoder import checkpoint
from silo_app.encoder.charging import Charging
from silo_app.encoder.controls import Controls
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import devices_for
from silo_app.encoder.embed import embed
from silo_app.encoder.evaluate import findings_auc
from silo_app.encoder.examine import examine
from silo_app.encoder.heard import Speaker
from silo_app.encoder.losses import known_loss
from silo_app.encoder.model import Encoder, build, layout_of, load_vector, to_vector
from silo_app.encoder.own import WHOLE_NETWORKS, Personal, shared_size
from silo_app.encoder.parts import in_parts, short_of_memory
from silo_app.encoder.private import train_round_privately
from silo_app.encoder.sampling import Weighable
from silo_app.encoder.settings import PrivacyPlan, TrainSettings
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.train import Beginning, Means, RoundOutcome, train_round
from silo_app.encoder.tuning import tune_round, tuning_round
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import EncoderMismatch, NotReady, PrivacyRefused, SiloscopeError

Progress = Callable[[int, int], None]


class Worker:
    """What a trainer can do; each public method is one operation, its arguments are numbers and file names."""

    def __init__(self, kit: Path, folder: Path) -> None:
        self._home = config.load(kit)
        self._folder = folder
        self._spec: EncoderSpec | None = None
        self._private = False
        self._charging: Charging | None = None
        self._devices: tuple[torch.device, ...] = (torch.device("cpu"),)
        self._at_once = self._home.config.training.views_at_once

    def open(
        self,
        progress: Progress,
        *,
        spec: dict[str, Any],
        seed: int,
        start: str | None = None,
        personal: Personal = "none",
        private: dict[str, Any] | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """Load the silo's images and the start weights: drawn from `seed`, or those of the encoder version `start`.

        `personal` says which weights the silo has for itself; layout and weights in the answer are the shared ones.
        `private` is a job's privacy plan, training settings, rounds, how many of them are still to come, and "jobs" of which
        this one goes on, itself included. `again`: a
        trainer before this one opened the same, and the silo's budget was found to allow those rounds then; some are paid.
        """
        self._spec, self._charging, self._private = None, None, private is not None
        wanted = EncoderSpec.model_validate(spec)
        images = load(self._home, wanted, progress, leave_out=True)
        self._train, self._held_out = images.where(~images.held_out), images.where(images.held_out)
        self._model = build(wanted, seed)
        if start is not None:
            load_vector(self._model, self._started(start, wanted))
        layout, begin = layout_of(self._model), to_vector(self._model)
        self._personal, self._shared = personal, shared_size(layout, personal)
        self._begin = begin if personal == "ditto" else begin[self._shared :]
        self._devices = devices_for(self._home.config.training.device)
        self._model.to(self._devices[0])
        patients = len(np.unique(self._train.patients))
        if private and patients:
            self._charging = self._charged(private, patients, again=again)
        self._spec = wanted  # last: what fails before leaves a trainer without data, which trains nothing
        return {
            "layout": [one for one in layout if personal != "head" or not one[0].startswith("findings.")],
            "weights": self._written("start", begin[: self._shared]),
            "train_views": len(self._train),
            "weighable": astuple(Weighable.of(self._train.targets, self._train.known)),
            "held_out_views": len(self._held_out),
            "train_patients": patients,
            "positives": self._positives(),
        }

    def train(self, progress: Progress, *, settings: dict[str, Any], **given: Any) -> dict[str, Any]:
        """Train one round as `_round` does, in parts once a graphics processor's memory does not hold a batch.

        The answer says of how many views from this round on, if that changed. A private round is as it was paid for.
        """
        chosen = TrainSettings.model_validate(settings)

        def one(at_once: int | None) -> dict[str, Any]:
            return self._round(progress, chosen, at_once, **given)

        if self._private:
            return one(None)
        answer, at_once = in_parts(one, self._at_once, batch=chosen.batch_size)
        fewer, self._at_once = at_once != self._at_once, at_once
        return answer | ({"views_at_once": at_once} if fewer else {})

    def _round(
        self,
        progress: Progress,
        chosen: TrainSettings,
        at_once: int | None,
        *,
        weights: str,
        round: int,  # noqa: A002  (the word of the glossary, and of the request)
        rounds: int,
        seed: int,
        job: str = "",
        personal: str | None = None,
        pull: float = 0.0,
        tuned: int = 0,
        correction: str | None = None,
        squares: str | None = None,
    ) -> dict[str, Any]:
        """Train one round from `weights` and return where the new weights are; `job` pays for a private one.

        `personal` is where the silo's own weights are (None before its first round), `pull` what holds a whole network of
        its own near the shared one, `tuned` in how many of the last rounds it trains a copy, `correction` where SCAFFOLD's
        correction is, `squares` where those of its last round are.
        """
        model, images = self._with(weights, personal), self._opened(self._train)
        answer, beside_s = {}, 0.0
        tuning = tuning_round(round, rounds, tuned)
        beside = self._personal == "ditto" or tuning is not None
        means = self._means(chosen, at_once, twice=beside)
        if not self._private:
            began = Beginning.of(model)
            controls = Controls(model, read_vector(Path(correction))) if correction else None
            plain = partial(train_round, model, images, round_number=round, rounds=rounds, seed=seed, means=means)
            before = read_vector(Path(squares)) if squares else None
            outcome = plain(chosen, controls=controls, squares=before, progress=progress)
            if len(outcome.squares):
                answer["squares"] = self._written("trained-squares", outcome.squares)
            trained = to_vector(model)
            if controls is not None:
                answer["control"] = self._written("control", controls.mean())
            if self._personal == "ditto":
                load_vector(model, self._own(personal))
                beside_s = plain(chosen.model_copy(update={"proximal": pull}), anchor=began).seconds
            elif tuning is not None:
                load_vector(model, read_vector(Path(personal or weights)))
                beside_s = tune_round(model, images, chosen, number=tuning, tuned=tuned, seed=seed, means=means).seconds
            if beside:
                answer["personal"] = self._written("personal", to_vector(model))
        else:
            charging = self._paying()
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
            trained = to_vector(model)
        if self._personal == "head":
            answer["personal"] = self._written("personal", trained[self._shared :])
        return answer | {"weights": self._written("trained", trained[: self._shared])} | _told(outcome, beside_s)

    def tune(
        self,
        progress: Progress,
        *,
        weights: str,
        settings: dict[str, Any],
        first: int,
        tuned: int,
        seed: int,
        personal: str | None = None,
    ) -> dict[str, Any]:
        """Train the silo's own copy on, alone, for its rounds from `first` to `tuned`; a new one begins as `weights`."""
        chosen, images = TrainSettings.model_validate(settings), self._opened(self._train)
        model = self._with(weights, None)

        def one(at_once: int | None) -> dict[str, Any]:
            load_vector(model, read_vector(Path(personal or weights)))
            means = self._means(chosen, at_once, twice=False)
            for number in range(first, tuned):
                tune_round(model, images, chosen, number=number, tuned=tuned, seed=seed, means=means)
                progress(number + 1, tuned)
            return {"personal": self._written("personal", to_vector(model))}

        answer, self._at_once = in_parts(one, self._at_once, batch=chosen.batch_size)
        return answer

    def evaluate(self, progress: Progress, *, weights: str, personal: str | None = None) -> dict[str, Any]:
        """Return the findings' AUC and loss on the silo's held-out patients, and where the scores are.

        With a whole network of the silo's own (`personal`; Ditto's is there from the begin), its AUC and loss are added as
        "personal".
        """
        images = self._opened(self._held_out)
        if not len(images):
            return {"auc": {}, "loss": None, "views": 0, "known": 0}
        added = {}
        if self._personal in WHOLE_NETWORKS and len(own := self._own(personal)):
            load_vector(self._model, own)
            _, scores = embed(self._model, images.pixels)
            own_loss = known_loss(scores, images.targets, images.known)
            added["personal"] = {"auc": findings_auc(self._spec_of(), scores, images), "loss": own_loss}
        _, logits = embed(self._with(weights, personal), images.pixels, progress)
        file = self._folder / "scores.npz"
        names = np.array([str(finding) for finding in self._spec_of().findings])
        np.savez(file, findings=names, logits=logits, targets=images.targets, known=images.known, patients=images.patients)
        return {
            "auc": findings_auc(self._spec_of(), logits, images),
            "loss": known_loss(logits, images.targets, images.known),
            "views": len(images),
            "known": int(images.known.sum()),
            "scores": str(file),
            **added,
        }

    def save(
        self,
        progress: Progress,
        *,
        weights: str,
        card: dict[str, Any],
        current: bool,
        jobs: Sequence[str] = (),
        personal: str | None = None,
    ) -> dict[str, Any]:
        """Keep `weights` as an encoder version with its model card; `jobs` spent the privacy that the card names.

        A version is of shared weights: in the place of a personal head are zeros, and the head itself lies beside.
        """
        del progress
        if self._charging is not None:
            card = card | {"privacy": self._charging.spent(jobs)}
        shared = read_vector(Path(weights))
        vector = np.concatenate([shared, np.zeros(len(self._begin) if self._personal == "head" else 0, np.float32)])
        own = self._own(personal)
        version = checkpoint.save(self._home.models, self._spec_of(), vector, card, own if len(own) else None)
        if current:
            checkpoint.set_current(self._home.models, version)
        return {"version": version}

    def _started(self, version: str, wanted: EncoderSpec) -> NDArray[np.float32]:
        """Return the weights of an encoder version that the silo holds and that has the job's shape."""
        kept = checkpoint.load(self._home.models, EncoderVersion(version))
        if kept.spec != wanted:
            other = ", ".join(name for name in EncoderSpec.model_fields if getattr(kept.spec, name) != getattr(wanted, name))
            raise EncoderMismatch(
                f"encoder {version} has other settings than the job: {other}",
                where="the job's plan: start",
                remedy="Give the job the encoder settings of that version: silo model show.",
            )
        return kept.vector

    def examine(self, progress: Progress, *, version: str | None, floors: bool) -> dict[str, Any]:
        """Return what may be told about an encoder version, or the one in use, on the held-out patients (`SiloAnswer`)."""
        answer = examine(self._home, EncoderVersion(version) if version else None, with_floors=floors, progress=progress)
        return answer.model_dump(mode="json")

    def _charged(self, private: dict[str, Any], patients: int, *, again: bool) -> Charging:
        plan, settings = PrivacyPlan.model_validate(private["privacy"]), TrainSettings.model_validate(private["settings"])
        jobs = private.get("jobs", ())
        charging = Charging(self._home, plan, settings, rounds=private["rounds"], patients=patients, jobs=jobs)
        if not again:
            charging.require(private["left"])
        return charging

    def _paying(self) -> Charging:
        if self._charging is None:
            raise PrivacyRefused(
                "nothing can be paid for: this silo has no patients to train on", remedy="Run `silo ingest` first."
            )
        return self._charging

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

    def _with(self, weights: str, personal: str | None) -> Encoder:
        """Return the network with the shared weights, and the silo's own head if it has one."""
        self._spec_of()
        head = self._own(personal) if self._personal == "head" else np.empty(0, np.float32)
        load_vector(self._model, np.concatenate([read_vector(Path(weights)), head]))
        return self._model

    def _own(self, personal: str | None) -> NDArray[np.float32]:
        """Return the silo's own weights: as they were trained, or as all silos' begin; none where it has none (yet)."""
        return read_vector(Path(personal)) if personal else self._begin

    def _means(self, settings: TrainSettings, at_once: int | None, *, twice: bool) -> Means:
        """Return what this silo trains with; a network of its own, trained in the same round, takes half of its time."""
        ours = self._home.config.training
        limits = [limit for limit in (settings.round_seconds, ours.round_seconds) if limit is not None]
        seconds = min(limits) / (2 if twice else 1) if limits else None
        return Means(at_once=at_once, devices=self._devices, seconds=seconds)

    def _written(self, name: str, vector: Any) -> str:
        file = self._folder / f"{name}.safetensors"
        write_vector(file, vector)
        return str(file)


_TELL_EVERY_S = 0.5
OPERATIONS = ("open", "train", "tune", "evaluate", "save", "examine")


def round_seconds(seconds: float) -> float:
    """Return seconds to a millisecond."""
    return round(seconds, 3)


def _told(outcome: RoundOutcome, beside_s: float) -> dict[str, Any]:
    """Return what a round's training was; its seconds are also those of the network that the silo trained for itself."""
    return {
        "steps": outcome.steps,
        "planned": outcome.planned,
        "samples": outcome.samples,
        "loss": outcome.loss,
        "seconds": round_seconds(outcome.seconds + beside_s),
        "unsure": outcome.unsure,
    }


def serve(worker: Worker, requests: SimpleQueue[str], say: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until the process ends."""
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
        except (SiloscopeError, torch.OutOfMemoryError) as raised:
            error = raised if isinstance(raised, SiloscopeError) else short_of_memory("is used up")
            say({"error": {"code": error.code, "problem": error.problem, "remedy": error.remedy, "where": error.where}})


def main() -> None:
    """Run the child process."""
    answers = Speaker(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    answers.live()
    os.dup2(2, 1)  # what a library prints must not look like an answer
    requests: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        os._exit(0)  # the parent is gone: nobody wants the rest of this round

    threading.Thread(target=read, daemon=True).start()
    serve(Worker(Path(sys.argv[1]), Path(sys.argv[2])), requests, answers.say)


if __name__ == "__main__":
    main()
