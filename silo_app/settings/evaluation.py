"""What a silo tells about how well an encoder does on its patients."""

from typing import Literal

from pydantic import Field

from silo_app.settings.base import Settings

__all__ = ["EvaluationSettings"]


class EvaluationSettings(Settings):
    """What this silo tells an evaluation (`jobs/evaluate`): figures over its held-out patients, never anything of one.

    A figure needs `min_patients` patients on either side (with the finding, and without). No noise is added: figures
    before and after one more patient differ a little.
    """

    join: bool = True
    """Whether this silo takes part in evaluations."""
    min_patients: int = Field(default=11, ge=2)
    """Figures over fewer patients are not told (small cells: CMS's threshold of 11)."""
    groups: tuple[Literal["sex", "age_band", "device"], ...] = ("sex", "age_band")
    """By what figures are also told; `device` is manufacturer and model."""
