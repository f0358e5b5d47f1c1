"""Which of the sums that silos open may be told to the server: only what every silo in the sum agreed to; pure.

A pooled loss is about all silos' patients, so one silo's policy cannot give it away: consent is summed beside it, under the
same encryption, and the number is shared only where everybody in the sum said yes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CONSENT", "METRICS", "SharedMetric", "consent", "shared"]

CONSENT = "share_metrics"
"""The name of the number in which consent is summed."""
METRICS = ("loss", "held_out_loss")
"""Names of what is shared: the mean training loss of a round, and the held-out loss of the weights that it began with."""


@dataclass(frozen=True)
class SharedMetric:
    """One number over all silos in a sum; `step` counts sums of updates."""

    name: str
    step: int
    value: float


def consent(given: bool) -> dict[str, float]:  # noqa: FBT001  (one word, one answer)
    """Return what a silo adds to the sum."""
    return {CONSENT: float(given)}


def shared(trained: int, silos: int, sums: Mapping[str, float], line: Mapping[str, Any]) -> list[SharedMetric]:
    """Return what may be told of a sum of `silos` updates, the `trained`-th; `line` holds the means of `METRICS`."""
    if not silos or sums.get(CONSENT) != silos:
        return []
    steps = {"loss": trained, "held_out_loss": trained - 1}
    return [SharedMetric(name, steps[name], float(line[name])) for name in METRICS if line.get(name) is not None]
