"""How much of its patients' privacy a silo gives to training."""

from pydantic import Field

from silo_app.settings.base import Settings

__all__ = ["PrivacyBudget"]


class PrivacyBudget(Settings):
    """What all trainings together may spend, counted for whole patients: (epsilon, delta)-differential privacy.

    Only jobs with `privacy` in their plan promise anything; `silo privacy` shows what was spent.
    """

    required: bool = False
    """Refuse training jobs that promise no differential privacy."""
    epsilon_total: float | None = Field(default=None, gt=0, le=100)
    """The epsilon of all trainings together, for ever; a job that would spend more is refused. Null sets no limit."""
    delta: float = Field(default=1e-5, gt=0, lt=0.01)
    """The delta at which it is counted; below one over the number of patients."""
