"""Which round's weights a training keeps, and when it may end early: decided by every silo for itself; pure.

Every silo opens the same sums in the same order, also one that catches up, so all come to the same decision without a word.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Best", "Selection"]


@dataclass(frozen=True)
class Selection:
    """The best weights so far; weights are named by how many sums of updates are in them."""

    best: int = -1
    """-1 before any were judged."""
    loss: float | None = None
    """Pooled, over the held-out views of the silos that judged them."""
    silos: int = 0
    """How many silos that were: the most so far."""
    since: int = 0
    """How many later weights were judged by as many silos and were no better."""

    def judged(self, weights: int, silos: int, sums: Mapping[str, float]) -> "Selection":
        """Return what holds after the sum in which `silos` silos told their held-out losses of `weights`.

        Losses over fewer hospitals are not comparable: such weights are neither chosen nor counted. The first that more
        hospitals judge begin the comparison anew.
        """
        views = sums.get("held_out_views", 0.0)
        if views <= 0 or silos < self.silos:
            return self
        loss = sums["held_out_loss_views"] / views
        if self.loss is None or silos > self.silos or loss < self.loss:
            return Selection(weights, loss, silos)
        return Selection(self.best, self.loss, self.silos, self.since + 1)

    def exhausted(self, patience: int | None) -> bool:
        """Return whether `patience` weights in a row were no better."""
        return patience is not None and self.since >= patience

    def content(self) -> dict[str, Any]:
        """Return the selection as it is kept in a file; `Selection(**content)` reads it."""
        return asdict(self)


@dataclass(frozen=True)
class Best:
    """A selection with the weights that it chose, float32 (P,), empty while there are none."""

    selection: Selection
    weights: NDArray[np.float32]

    @classmethod
    def none(cls) -> "Best":
        """Return what holds before any weights were judged, and for ever in a job that keeps the last."""
        return cls(Selection(), np.empty(0, dtype=np.float32))

    def judged(self, trained: int, weights: NDArray[np.float32], silos: int, sums: Mapping[str, float]) -> "Best":
        """Return what holds after a sum that came with the held-out losses of `weights`, in which `trained` sums are."""
        selection = self.selection.judged(trained, silos, sums)
        return Best(selection, weights if selection.best != self.selection.best else self.weights)
