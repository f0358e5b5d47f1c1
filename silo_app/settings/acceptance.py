"""When a silo stands aside from a training: its own test of every sum."""

from pydantic import Field

from silo_app.settings.base import Settings

__all__ = ["AcceptanceSettings"]


class AcceptanceSettings(Settings):
    """When this silo rejects a sum: it tests every one on its own held-out patients."""

    test: bool = True
    """Whether sums are tested."""
    max_loss_factor: float = Field(default=5.0, gt=1.0)
    """Reject a sum after which the loss is more than so many times what it was (or what knowing nothing costs)."""
    max_auc_drop: float = Field(default=0.3, gt=0.0, le=1.0)
    """Reject a sum that lowers the mean AUC of the findings by more than this."""
    min_views: int = Field(default=30, ge=1)
    """With fewer held-out views chance decides: then only a loss that is not finite is rejected."""
