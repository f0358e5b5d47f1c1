"""The silo's own copy in a job that ended before the copies' rounds: trained alone, once the shared encoder is kept."""

import logging

from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.trainer import Trainer
from silo_app.errors import SiloscopeError

__all__ = ["late_copy"]

_log = logging.getLogger(__name__)


def late_copy(trainer: Trainer, plan: TrainingPlan, trained: int, *, weights: str, personal: str | None) -> str | None:
    """Train the copy for the rounds that did not come, after `trained` sums, and return where it is.

    It goes on from `personal`, or begins as `weights`. None if no round is left, or it fails: that costs the copy alone.
    """
    left, settings = plan.left_to_tune(trained), plan.training.model_dump(mode="json")
    if not left:
        return None
    try:
        tuned = trainer.request(
            "tune", weights=weights, personal=personal, settings=settings, first=left.start, tuned=left.stop, seed=plan.seed
        )
    except SiloscopeError as error:
        _log.warning("the silo's own copy could not be trained: %s", error.problem)
        return None
    return str(tuned["personal"])
