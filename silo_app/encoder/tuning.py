"""A silo's own copy of the shared encoder, trained on its images alone in a job's later rounds: findings as they are there.

Hospitals' patients, devices and labels differ, and what tells a finding in all of them tells it best in none. Tuning what
was averaged is the simplest way to a network of one's own, and hard to beat (Cheng, Chadha and Duchi, "Fine-tuning is fine
in federated learning", 2021). The copy never leaves the silo; neighbors are found by the shared encoder.
"""

from collections.abc import Callable

from silo_app.encoder.dataset import Images
from silo_app.encoder.model import Encoder
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.train import Means, RoundOutcome, train_round

__all__ = ["tune_round", "tuning_round"]


def tuning_round(number: int, rounds: int, tuned: int) -> int | None:
    """Return which of the last `tuned` rounds the round `number` (from 0) of `rounds` is, from 0; None before them."""
    return number - (rounds - tuned) if tuned and number >= rounds - tuned else None


def tune_round(
    model: Encoder,
    images: Images,
    settings: TrainSettings,
    *,
    number: int,
    tuned: int,
    seed: int,
    means: Means | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RoundOutcome:
    """Train the copy, `model`, in place for round `number` of its `tuned` ones, with a course of learning rates of its own.

    Raises as `train_round` does.
    """
    chosen = settings.model_copy(update={"proximal": 0.0})
    return train_round(model, images, chosen, round_number=number, rounds=tuned, seed=seed, means=means, progress=progress)
