"""One silo's training in one round, with what the silo has: labels or none, a CPU or a graphics processor, little time.

Views with known findings learn from them (masked findings loss, supervised contrast); views without learn from themselves
(two augmentations of one view). So a silo without any label takes part like the others.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from silo_app.encoder.controls import Controls
from silo_app.encoder.dataset import Images
from silo_app.encoder.losses import contrastive_loss, findings_loss, prototype_loss, proximal_loss, smoothed, twins_loss
from silo_app.encoder.model import Encoder
from silo_app.encoder.optimizer import Squares, adamw, squares_of
from silo_app.encoder.passes import Passes
from silo_app.encoder.sampling import batches, positive_weights, shares
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.transforms import augment, standardised
from silo_app.errors import NotReady, UpdateRefused

__all__ = ["Beginning", "Means", "RoundOutcome", "learning_rate_at", "set_rate", "train_round"]

_LAST_RATE = 0.05
"""The learning rate at the end of a job, as a share of its highest."""
_ROUND_WARMUP = 5
"""Steps in which an AdamW that begins anew finds its scales before it takes full strides."""


@dataclass(frozen=True)
class Means:
    """What a silo trains with; the device is the model's."""

    at_once: int | None = None
    """The most views in one pass through the network; None for all of a batch. The gradient is the batch's."""
    devices: tuple[torch.device, ...] = ()
    """Graphics processors among which every pass is divided, the model's first; the model's alone if there are not two."""
    seconds: float | None = None
    """How long a round may take; what remains of its steps is left out, but for the first."""


@dataclass(frozen=True)
class RoundOutcome:
    """What one round of training did; the loss is the mean over its steps and stays in the silo."""

    steps: int
    samples: int
    loss: float
    seconds: float
    planned: int
    """How many steps it would have made with time enough."""
    unsure: float | None = None
    """The findings' own loss, a mean over the findings known in a step and then over the steps; None where none is."""
    squares: Squares = field(default_factory=lambda: np.empty(0, np.float32), compare=False, repr=False)
    """What the silo's next round goes on from (`optimizer`)."""


@dataclass(frozen=True)
class Beginning:
    """What a round began with: the same in every silo, because it came out of the sum."""

    weights: tuple[Tensor, ...]
    prototypes: Tensor
    """The findings head's rows, (F, D): one point a finding, to which all silos draw their views in this round."""

    @classmethod
    def of(cls, model: Encoder) -> "Beginning":
        """Return a copy that training does not change."""
        weights = tuple(one.detach().clone() for one in model.parameters())
        return cls(weights, model.findings.weight.detach().clone())


@dataclass(frozen=True)
class _Batch:
    """What one step looks at; B views, of U of which no finding is known."""

    views: Tensor
    """Augmented network inputs, float32 (B + U, 1, S, S): all views, and those without known findings a second time."""
    targets: Tensor  # (B, F)
    known: Tensor  # (B, F)
    unlabelled: Tensor
    """Rows of the views of which no finding is known, int64 (U,); none where they are not to be learned from."""

    @classmethod
    def drawn(cls, data: Images, chosen: NDArray[np.int64], settings: TrainSettings, generator: torch.Generator) -> "_Batch":
        """Return the views `chosen` (B,) on the generator's device."""
        device = generator.device
        images = torch.from_numpy(data.pixels[chosen])[:, None].to(device)  # (B, 1, S, S)
        targets, known = (torch.from_numpy(part[chosen]).to(device) for part in (data.targets, data.known))
        learned = np.flatnonzero(~data.known[chosen].any(axis=1)) if settings.self_supervised else ()
        unlabelled = torch.as_tensor(learned, dtype=torch.int64, device=device)
        if len(unlabelled):
            images = torch.cat([images, images[unlabelled]])
        strong = settings.photometry == "strong"
        views = standardised(augment(images, generator, strong=strong, movement=settings.movement))
        return cls(views, targets, known, unlabelled)


def train_round(
    model: Encoder,
    data: Images,
    settings: TrainSettings,
    *,
    round_number: int,
    rounds: int,
    seed: int,
    means: Means | None = None,
    anchor: Beginning | None = None,
    controls: Controls | None = None,
    squares: Squares | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RoundOutcome:
    """Train `model` in place on `data` for round `round_number` (from 0) of `rounds`.

    A finding that all views of the silo have, or none, is not learned from (`Images.told_apart`); views without another
    known finding are learned from by themselves.
    `anchor` is what the proximal term pulls to (default: the weights at the begin); `controls` correct gradients;
    `squares` are those of the silo's last round, none before its first; they count where the settings keep them.
    The same weights, data, settings and seed give the same result on the same machine with the same threads, unless time
    ran out. Raises `NotReady` without images, `UpdateRefused` when the loss is not finite.
    """
    if not len(data):
        raise NotReady("there are no images to train on", remedy="Run `silo ingest` first.")
    start, means, data = time.monotonic(), means or Means(), data.told_apart()
    rng = np.random.default_rng([seed, round_number, len(data)])
    began = anchor or Beginning.of(model)
    device = began.prototypes.device
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
    optimizer = adamw(model, settings, squares if settings.squares == "kept" else None)
    warmup = 1 if optimizer.state else _ROUND_WARMUP  # one that goes on warms up by itself
    passes = Passes.on(device, settings.precision, means.at_once)
    planned, steps, total = settings.steps_for(len(data)), 0, torch.zeros((), dtype=torch.float64, device=device)
    unsure = torch.zeros(2, dtype=torch.float64, device=device)
    share = shares(data.targets, data.known)
    positive = torch.from_numpy(positive_weights(data.targets, data.known, share)).to(device)
    model.train()
    network = passes.over(model, means.devices)
    for chosen in batches(share, settings.batch_size, planned, rng):
        rate = learning_rate_at(settings, (round_number + steps / planned) / rounds)
        set_rate(optimizer, rate * min(1.0, (steps + 1) / warmup))
        batch = _Batch.drawn(data, chosen, settings, generator)  # float32: a grid of bfloat16 is off by most of a pixel
        optimizer.zero_grad(set_to_none=True)
        loss = passes.backward(network, batch.views, _loss_of(model, batch, positive, settings, began, unsure))
        if not torch.isfinite(loss):
            raise UpdateRefused(
                f"the loss is not finite at step {steps + 1} of round {round_number + 1}",
                remedy="Lower training.learning_rate; nothing of this round leaves the silo.",
            )
        passes.unscaled(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        if controls is not None:
            controls.correct()
        passes.step(optimizer)
        total += loss
        steps += 1
        if progress is not None:
            progress(steps, planned)
        if means.seconds is not None and time.monotonic() - start >= means.seconds:
            break
    mean, (lost, over) = float(total) / steps, unsure.tolist()
    seconds = time.monotonic() - start
    unsure_of = lost / over if over else None
    return RoundOutcome(steps, steps * settings.batch_size, mean, seconds, planned, unsure_of, _left(optimizer, settings))


def _left(optimizer: torch.optim.Optimizer, settings: TrainSettings) -> Squares:
    """Return what the next round goes on from, where it does."""
    return squares_of(optimizer) if settings.squares == "kept" else np.empty(0, np.float32)


def learning_rate_at(settings: TrainSettings, done: float) -> float:
    """Return the learning rate after the share `done`, in [0, 1], of the whole job."""
    if done < settings.warmup:
        return settings.learning_rate * max(done / settings.warmup, _LAST_RATE)
    falling = (done - settings.warmup) / (1 - settings.warmup)
    return settings.learning_rate * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * falling)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def _findings_told(known: Tensor) -> Tensor:
    """Return the root of how many findings are known of a view, the mean over those of which any is; `known` (B, F).

    The findings' losses are summed: beside many of them one contrast would fade, and beside a single one drown it.
    """
    told = known.sum(dim=1).float()  # (B,)
    return (told.sum() / (told > 0).sum().clamp(min=1)).clamp(min=1.0).sqrt()


def _loss_of(
    model: Encoder, batch: _Batch, positive: Tensor, settings: TrainSettings, began: Beginning, unsure: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what a step minimises, of the embeddings (B + U, D) and logits (B + U, F) of its batch.

    To `unsure` (2,) it adds the findings' loss, the mean over those known, and 1; nothing where none is.
    """
    targets, known, count = batch.targets, batch.known, len(batch.targets)

    def loss_of(embeddings: Tensor, logits: Tensor) -> Tensor:
        embedding = embeddings[:count]
        loss = findings_loss(logits[:count], smoothed(targets, settings.smoothing), known, positive)
        findings = known.any(dim=0).sum()
        unsure.add_(torch.stack([loss.detach() / findings.clamp(min=1), (findings > 0).to(loss.dtype)]))
        if settings.contrast:
            alike = contrastive_loss(embedding, targets, known, settings.temperature)
            loss = loss + settings.contrast * _findings_told(known) * alike
        if len(batch.unlabelled):
            alone = twins_loss(embedding, embeddings[count:], batch.unlabelled, settings.temperature)
            loss = loss + settings.self_supervised * alone * (len(batch.unlabelled) / count)
        if settings.prototypes:
            near = prototype_loss(embedding, began.prototypes, targets, known, settings.temperature)
            loss = loss + settings.prototypes * near
        if settings.proximal:
            loss = loss + settings.proximal * proximal_loss(list(model.parameters()), began.weights)
        return loss

    return loss_of
