"""One silo's training in one round: balanced batches, masked findings loss, supervised contrast, gradient clipping."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from silo_app.encoder.dataset import Images
from silo_app.encoder.model import Encoder
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.transforms import augment, standardised
from silo_app.errors import UpdateRefused

__all__ = ["RoundOutcome", "contrastive_loss", "findings_loss", "train_round"]


@dataclass(frozen=True)
class RoundOutcome:
    """What one round of training did; the loss is the mean over its steps and stays in the silo."""

    steps: int
    samples: int
    loss: float
    seconds: float


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
    """Train `model` in place on `data` for one round. Raises `UpdateRefused` when the loss is not finite."""
    start = time.monotonic()
    rng = np.random.default_rng([seed, round_number, len(data)])
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate * _cosine(round_number, rounds),
        weight_decay=settings.weight_decay,
    )
    steps = max(1, round(settings.epochs * len(data) / settings.batch_size))
    steps = min(steps, settings.max_steps or steps)
    model.train()
    total = 0.0
    for step, chosen in enumerate(_batches(data, settings.batch_size, steps, rng)):
        loss = _loss(model, data, chosen, settings, generator)
        if not torch.isfinite(loss):
            raise UpdateRefused(
                f"the loss is not finite at step {step} of round {round_number}",
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


def findings_loss(logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over what is known; (B, F) each; 0 if nothing is known."""
    each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def contrastive_loss(embedding: Tensor, targets: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Pull together views that share what is known of them, and push apart the others.

    Supervised contrast (Khosla et al. 2020, L_out) where two views (B) are alike when no finding known of both differs and
    at least one is known of both; `embedding` (B, D), `targets` and `known` (B, F).
    """
    unit = functional.normalize(embedding)
    others = ~torch.eye(len(unit), dtype=torch.bool)
    similarity = (unit @ unit.T / temperature).masked_fill(~others, -1e9)
    log_share = similarity - similarity.logsumexp(dim=1, keepdim=True)
    both = known[:, None, :] & known[None, :, :]
    differ = (both & (targets[:, None, :] != targets[None, :, :])).any(dim=2)
    alike = both.any(dim=2) & ~differ & others
    count = alike.sum(dim=1)
    has = count > 0
    if not has.any():
        return embedding.sum() * 0
    return -((log_share * alike).sum(dim=1)[has] / count[has]).mean()


def _loss(
    model: Encoder, data: Images, chosen: NDArray[np.int64], settings: TrainSettings, generator: torch.Generator
) -> Tensor:
    images = torch.from_numpy(data.pixels[chosen])[:, None]  # (B, 1, S, S)
    targets, known = torch.from_numpy(data.targets[chosen]), torch.from_numpy(data.known[chosen])
    embedding, logits = model(standardised(augment(images, generator)))
    loss = findings_loss(logits, targets, known)
    if settings.contrast:
        loss = loss + settings.contrast * contrastive_loss(embedding, targets, known, settings.temperature)
    return loss


def _batches(data: Images, size: int, steps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield batches in which rare and common label patterns are drawn equally often: a silo may hold few of a kind."""
    patterns = np.unique(np.where(data.known, data.targets, -1), axis=0, return_inverse=True)[1].reshape(-1)
    share = 1 / np.sqrt(np.bincount(patterns))[patterns]
    counts = np.bincount(patterns)
    if len(counts) == 2:
        share = 1 / counts[patterns]  # present or absent only: draw both equally often
    share = share / share.sum()
    for _ in range(steps):
        yield rng.choice(len(data), size=size, p=share)


def _cosine(round_number: int, rounds: int) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * round_number / max(rounds, 1)))
