"""An encoder that one silo trains by itself: the baseline that federation has to beat, and a start without others."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from silo_app.cases import EncoderVersion, Split
from silo_app.config import SiloHome
from silo_app.encoder import checkpoint
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import devices_for
from silo_app.encoder.embed import embed
from silo_app.encoder.metrics import findings_figures
from silo_app.encoder.model import Encoder, build, load_vector, to_vector
from silo_app.encoder.parts import in_parts
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.train import Means, RoundOutcome, train_round
from silo_app.errors import NotReady

__all__ = ["CurvePoint", "LocalTraining", "train_local"]

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, how much there is."""


@dataclass(frozen=True)
class CurvePoint:
    """After `round` rounds: each finding's AUC on held-out views, and over how many views."""

    round: int
    auc: dict[str, float]
    views: int


@dataclass(frozen=True)
class LocalTraining:
    """What a silo's own training made."""

    version: EncoderVersion
    curve: list[CurvePoint]
    steps: int
    seconds: float


def train_local(
    home: SiloHome,
    spec: EncoderSpec,
    settings: TrainSettings,
    *,
    rounds: int,
    seed: int,
    also_evaluate: Sequence[SiloHome] = (),
    curve: bool = False,
    progress: Progress | None = None,
) -> LocalTraining:
    """Train on this silo's images alone, with the steps that it would make in a federated job of the same settings.

    The encoder is kept as a version whose card says "local only"; it is not made current. With `curve` every round is
    evaluated, on the held-out patients of this silo and of `also_evaluate` (several silos on one machine: a demo).
    Raises `NotReady` without images.
    """
    images = load(home, spec, None if progress is None else lambda done, total: progress("reading", done, total))
    train, held_out = images.where(~images.held_out), [images.where(images.held_out)]
    if not len(train):
        raise NotReady("this silo has no images to train on", where=home.config.name, remedy="Run `silo ingest` first.")
    held_out += [load(other, spec, split=Split.HELD_OUT) for other in also_evaluate if other.kit != home.kit]
    start, steps, points = time.monotonic(), 0, []
    ours = home.config.training
    devices, at_once = devices_for(ours.device), ours.views_at_once
    model, squares = build(spec, seed).to(devices[0]), np.empty(0, np.float32)
    for number in range(rounds):
        if curve:
            points.append(_point(model, spec, number, held_out))
        told = None if progress is None else _told(progress, number, rounds)
        plain = partial(
            train_round,
            model,
            train,
            settings,
            round_number=number,
            rounds=rounds,
            seed=seed,
            squares=squares,
            progress=told,
        )
        one = partial(_from, model, to_vector(model), plain, devices)
        outcome, at_once = in_parts(one, at_once, batch=settings.batch_size)
        steps, squares = steps + outcome.steps, outcome.squares
    if curve:
        points.append(_point(model, spec, rounds, held_out))
    card = {
        "kind": "local only",
        "silos": {home.config.name: len(train)},
        "rounds": rounds,
        "seed": seed,
        "training": settings.model_dump(mode="json"),
    }
    version = checkpoint.save(home.models, spec, to_vector(model), card)
    return LocalTraining(version, points, steps, round(time.monotonic() - start, 1))


def _from(
    model: Encoder,
    begin: NDArray[np.float32],
    train: Callable[..., RoundOutcome],
    devices: tuple[torch.device, ...],
    at_once: int | None,
) -> RoundOutcome:
    """Train from the weights `begin`, with so many views at once."""
    load_vector(model, begin)
    return train(means=Means(at_once=at_once, devices=devices))


def _point(model: Encoder, spec: EncoderSpec, number: int, held_out: Sequence[Images]) -> CurvePoint:
    if not any(len(one) for one in held_out):
        return CurvePoint(number, {}, 0)
    scores = np.concatenate([embed(model, one.pixels)[1] for one in held_out if len(one)])
    figures = findings_figures(
        [str(finding) for finding in spec.findings],
        scores,
        np.concatenate([one.targets for one in held_out if len(one)]),
        np.concatenate([one.known for one in held_out if len(one)]),
        np.concatenate([one.patients for one in held_out if len(one)]),
    )
    return CurvePoint(number, {name: round(one.auc.value, 4) for name, one in figures.items()}, len(scores))


def _told(progress: Progress, number: int, rounds: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"round {number + 1}/{rounds}", number * total + done, rounds * total)
