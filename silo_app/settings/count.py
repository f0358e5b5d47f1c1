"""How many cases are like this one: what a silo tells of that, and how blurred."""

from pydantic import Field

from silo_app.settings.base import Settings

__all__ = ["CountSettings"]


class CountSettings(Settings):
    """Counts of patients whose cases are alike to a query (docs/how-to-guard-search.md).

    Every number has noise of its own, two-sided geometric. One patient more or less changes each number by one at most.
    """

    answer: bool = True
    """Whether this silo answers with counts at all."""
    min_count: int = Field(default=11, ge=1, le=1_000_000)
    """A smaller number, after its noise, is told as "fewer than" this."""
    epsilon: float = Field(default=1.0, ge=0.01, le=10)
    """The noise of one number: a patient more or less changes the odds of what is told by exp(epsilon) at most."""
    numbers_per_day: int = Field(default=100, ge=0)
    """How many numbers each silo is told in a day (UTC); a count by finding is a number for each finding, and the sum."""
    user_numbers_per_day: int = Field(default=60, ge=0)
    """How many of them one user of a silo is told, as that silo names its users."""
