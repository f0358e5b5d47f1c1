"""One silo's training in one round: balanced batches, masked findings loss, supervised contrast, gradient clipping."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from silo_app.encoder.dataset import Images
from silo_app.encoder.losses import contrastive_loss, findings_loss, prototype_loss, proximal_loss
from silo_app.encoder.model import Encoder
from silo_app.encoder.sampling import batches, positive_weights, shares
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.transforms import augment, standardised
from silo_app.errors import NotReady, UpdateRefused

__all__ = ["Beginning", "RoundOutcome", "learning_rate_at", "set_rate", "train_round"]

_LAST_RATE = 0.05
"""The learning rate at the end of a job, as a share of its highest."""
_ROUND_WARMUP = 5
"""Steps in which a round's fresh AdamW finds its scales before it takes full strides."""


@dataclass(frozen=True)
class RoundOutcome:
    """What one round of training did; the loss is the mean over its steps and stays in the silo."""

    steps: int
    samples: int
    loss: float
    seconds: float


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


def train_round(
    model: Encoder,
    data: Images,
    settings: TrainSettings,
    *,
    round_number: int,
    rounds: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> RoundOutcome:
    """Train `model` in place on `data` for round `round_number` (from 0) of `rounds`.

    The same weights, data, settings and seed give the same result on the same machine with the same threads. Raises
    `NotReady` without images, `UpdateRefused` when the loss is not finite.
    """
    if not len(data):
        raise NotReady("there are no images to train on", remedy="Run `silo ingest` first.")
    start = time.monotonic()
    rng = np.random.default_rng([seed, round_number, len(data)])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)
    steps = settings.steps_for(len(data))
    share = shares(data.targets, data.known)
    positive = torch.from_numpy(positive_weights(data.targets, data.known, share))
    began = Beginning.of(model)
    model.train()
    total = 0.0
    for step, chosen in enumerate(batches(share, settings.batch_size, steps, rng)):
        rate = learning_rate_at(settings, (round_number + step / steps) / rounds)
        set_rate(optimizer, rate * min(1.0, (step + 1) / _ROUND_WARMUP))
        loss = _loss(model, data, chosen, positive, settings, generator, began)
        if not torch.isfinite(loss):
            raise UpdateRefused(
                f"the loss is not finite at step {step + 1} of round {round_number + 1}",
                remedy="Lower training.learning_rate; nothing of this round leaves the silo.",
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        total += float(loss.detach())
        if progress is not None:
            progress(step + 1, steps)
    return RoundOutcome(steps, steps * settings.batch_size, total / steps, time.monotonic() - start)


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


def _loss(
    model: Encoder,
    data: Images,
    chosen: NDArray[np.int64],
    positive: Tensor,
    settings: TrainSettings,
    generator: torch.Generator,
    began: Beginning,
) -> Tensor:
    images = torch.from_numpy(data.pixels[chosen])[:, None]  # (B, 1, S, S)
    targets, known = torch.from_numpy(data.targets[chosen]), torch.from_numpy(data.known[chosen])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_bfloat16(settings)):
        embedding, logits = model(standardised(augment(images, generator, strong=settings.photometry == "strong")))
    embedding, logits = embedding.float(), logits.float()  # a softmax over similarities needs more than 8 bits
    loss = findings_loss(logits, targets, known, positive)
    if settings.contrast:
        loss = loss + settings.contrast * contrastive_loss(embedding, targets, known, settings.temperature)
    if settings.prototypes:
        loss = loss + settings.prototypes * prototype_loss(embedding, began.prototypes, targets, known, settings.temperature)
    if settings.proximal:
        loss = loss + settings.proximal * proximal_loss(list(model.parameters()), began.weights)
    return loss


def _bfloat16(settings: TrainSettings) -> bool:
    if settings.precision != "auto":
        return settings.precision == "bfloat16"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
