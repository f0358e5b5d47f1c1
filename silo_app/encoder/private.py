"""Training that promises differential privacy for whole patients: DP-SGD with one view of each patient drawn for a step.

A step draws every patient with the same probability (Poisson sampling), one of the patient's views at random, clips the
gradient of that view and adds Gaussian noise (Abadi et al., "Deep learning with differential privacy", CCS 2016). So all
images of a patient count together, and a patient with many images gives no more than one with a single image. Gradients
are clipped by their norms alone ("ghost clipping": Li et al., ICLR 2022; Opacus), which needs the memory of two passes.

Draws and noise come from the system's entropy, not from the job's seed, which everybody knows. What the silo's labels say
about shares of findings is not used either: balanced drawing and weighting would tell it.
"""

import secrets
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from silo_app.encoder.dataset import Images
from silo_app.encoder.losses import each_findings_loss, smoothed
from silo_app.encoder.model import Encoder
from silo_app.encoder.optimizer import adamw
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import Beginning, RoundOutcome, learning_rate_at, set_rate
from silo_app.encoder.transforms import augment, standardised
from silo_app.errors import NotReady, UpdateRefused
from silo_app.privacy.accountant import Steps
from silo_app.privacy.gaussian import GaussianNoise

__all__ = ["Draws", "clipped_gradients", "planned_steps", "train_round_privately"]

_ROUND_WARMUP = 5


def planned_steps(settings: TrainSettings, patients: int, noise: float) -> Steps:
    """Return what one round of a silo with so many patients does: known before, and whatever the images show.

    `batch_size` patients are drawn for a step on average, all of them in a silo that has no more.
    """
    return Steps(noise, min(1.0, settings.batch_size / patients), settings.steps_for(patients))


@dataclass(frozen=True)
class Draws:
    """Where chance comes from; a test gives its own."""

    patients: np.random.Generator
    noise: GaussianNoise

    @classmethod
    def secret(cls) -> "Draws":
        """Return generators that nobody can foresee."""
        return cls(np.random.default_rng(secrets.randbits(128)), GaussianNoise.secret())


def train_round_privately(
    model: Encoder,
    data: Images,
    settings: TrainSettings,
    planned: Steps,
    *,
    clip_norm: float,
    round_number: int,
    rounds: int,
    draws: Draws | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RoundOutcome:
    """Train `model` in place on `data` as `planned`; the caller has paid for it (`silo_app.privacy.ledger`).

    The outcome's samples are the expected number, as the true one would tell something. Its loss is of the silo only.
    Raises `NotReady` without images, `UpdateRefused` when the loss is not finite.
    """
    if not len(data):
        raise NotReady("there are no images to train on", remedy="Run `silo ingest` first.")
    start, draws = time.monotonic(), draws or Draws.secret()
    began = Beginning.of(model)
    rows = _rows_by_patient(data)
    expected = planned.rate * len(rows)
    optimizer = adamw(model, settings)
    model.train()
    losses: list[float] = []
    for step in range(planned.steps):
        rate = learning_rate_at(settings, (round_number + step / planned.steps) / rounds)
        set_rate(optimizer, rate * min(1.0, (step + 1) / _ROUND_WARMUP))
        chosen = _drawn(rows, planned.rate, draws.patients)
        losses += _set_gradients(model, data, chosen, settings, clip_norm, draws)
        _add_noise(model, planned.noise * clip_norm, expected, draws.noise)
        if settings.proximal:
            _pull_back(model, settings.proximal, began)
        optimizer.step()
        if progress is not None:
            progress(step + 1, planned.steps)
    loss, samples = float(np.mean(losses or [0.0])), round(expected * planned.steps)
    return RoundOutcome(planned.steps, samples, loss, time.monotonic() - start, planned.steps)


def clipped_gradients(model: Encoder, images: Tensor, targets: Tensor, known: Tensor, clip_norm: float) -> Tensor:
    """Set every parameter's gradient to the sum of the views' clipped gradients; return the views' losses (B,).

    `images` (B, 1, S, S), `targets` and `known` (B, F). A view's gradient longer than `clip_norm`, over all parameters
    together, is shortened to it.
    """
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    hooked = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=clip_norm, use_ghost_clipping=True, loss_reduction="sum"
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook is firing")  # the images need no gradients
            _, logits = hooked(images)
            losses = each_findings_loss(logits, targets, known)  # (B,)
            losses.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            scale = hooked.get_clipping_coef().detach()  # (B,)
            model.zero_grad(set_to_none=True)
            hooked.disable_hooks()
            (scale * losses).sum().backward()
    finally:
        hooked.remove_hooks()
        _forget_norms(model)
    return losses.detach()


def _set_gradients(
    model: Encoder, data: Images, chosen: NDArray[np.int64], settings: TrainSettings, clip_norm: float, draws: Draws
) -> list[float]:
    """Leave the sum of the chosen views' clipped gradients in the parameters; none were chosen: zeros."""
    if not len(chosen):
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        return []
    device = model.device
    images = torch.from_numpy(data.pixels[chosen])[:, None].to(device)  # (B, 1, S, S)
    targets, known = (torch.from_numpy(part[chosen]).to(device) for part in (data.targets, data.known))
    augmenting = torch.Generator(device).manual_seed(int(draws.patients.integers(2**31)))
    strong = settings.photometry == "strong"
    views = standardised(augment(images, augmenting, strong=strong, movement=settings.movement))
    losses = clipped_gradients(model, views, smoothed(targets, settings.smoothing), known, clip_norm)
    if not torch.isfinite(losses).all():
        raise UpdateRefused(
            "the loss of a private step is not finite",
            remedy="Lower training.learning_rate, or privacy.noise; nothing of this round leaves the silo.",
        )
    return [float(one) for one in losses]


def _add_noise(model: nn.Module, deviation: float, expected: float, noise: GaussianNoise) -> None:
    """Turn the sum of clipped gradients into a noisy mean over the expected number of patients, not over the drawn one.

    In double precision, rounded after: what is kept has fewer bits than the noise had.
    """
    for weight in model.parameters():
        drawn = torch.from_numpy(deviation * noise.draw(weight.numel())).view_as(weight).to(weight.device)
        grad = weight.grad if weight.grad is not None else torch.zeros_like(weight)
        weight.grad = ((grad.double() + drawn) / expected).to(weight.dtype)


def _pull_back(model: nn.Module, proximal: float, began: Beginning) -> None:
    """Add the gradient of FedProx's term: no image is in it, so it is neither clipped nor paid for."""
    for weight, start in zip(model.parameters(), began.weights, strict=True):
        if weight.grad is not None:
            weight.grad += proximal * (weight.detach() - start)


def _rows_by_patient(data: Images) -> list[NDArray[np.int64]]:
    _, which = np.unique(data.patients, return_inverse=True)
    order = np.argsort(which, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(which[order])) + 1)


def _drawn(rows: list[NDArray[np.int64]], rate: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return one view of each patient that is drawn, int64 (B,); B may be 0."""
    patients = np.flatnonzero(rng.random(len(rows)) < rate)
    return np.array([rng.choice(rows[patient]) for patient in patients], dtype=np.int64)


def _forget_norms(model: nn.Module) -> None:
    """Drop what the hooks left on the parameters; it would be taken for the next step's."""
    for weight in model.parameters():
        for name in ("_norm_sample", "_forward_counter", "_current_grad_sample", "grad_sample"):
            if hasattr(weight, name):
                delattr(weight, name)
