"""What a silo accepts: trainings that it takes part in; and sums, of which much worse weights make it stand aside.

Pure. What it says stays in the silo; the server learns that the sum was rejected, and no number.
"""

import math
from collections.abc import Mapping
from typing import Any

from silo_app.config import AcceptanceSettings, TrainingSettings
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import NotReady, PrivacyRefused

__all__ = ["require_willing", "why_rejected"]

_LOSS_OF_NOTHING = 0.7
"""The loss of an encoder that knows nothing, ln 2 a finding: no loss below it counts as exploding."""


def why_rejected(before: Mapping[str, Any] | None, after: Mapping[str, Any], settings: AcceptanceSettings) -> str:
    """Return why the silo rejects the weights that did `after`, given those that did `before`; empty if it accepts them.

    Both are what the trainer says of held-out patients: "loss", "auc" by finding, "views". With fewer than `min_views`
    views, only a loss that is not finite counts.
    """
    loss = after.get("loss")
    if not settings.test or loss is None:
        return ""
    if not math.isfinite(loss):
        return "the loss on held-out patients is not finite"
    if not before or after["views"] < settings.min_views:
        return ""
    if loss > settings.max_loss_factor * max(before.get("loss") or 0.0, _LOSS_OF_NOTHING):
        return "the loss on held-out patients explodes"
    if _mean_drop(before.get("auc", {}), after.get("auc", {})) > settings.max_auc_drop:
        return "the AUC on held-out patients collapses"
    return ""


def _mean_drop(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> float:
    pairs = [(was, now) for name, was in before.items() if was is not None and (now := after.get(name)) is not None]
    return sum(was - now for was, now in pairs) / len(pairs) if pairs else 0.0


def require_willing(own: TrainingSettings, plan: TrainingPlan) -> None:
    """Raise `NotReady` or `PrivacyRefused` if the silo's owner takes part in no training, or in none such as this."""
    if not own.join:
        raise NotReady("this silo does not take part in training", remedy="Set training.join in silo.yaml.")
    if own.privacy.required and plan.privacy is None:
        raise PrivacyRefused(
            "the job promises no differential privacy, and this silo takes part in none without",
            where="silo.yaml: training.privacy.required",
            remedy="Submit it with privacy, for example "
            "--set privacy.epsilon=8 --set training.contrast=0 --set personal=none --set fairness=0.",
        )
