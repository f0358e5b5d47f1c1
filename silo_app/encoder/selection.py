"""Which round's weights a training keeps, and when it may end early: decided by every silo for itself; pure.

Every silo opens the same sums in the same order, also one that catches up, so all come to the same decision without a word.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Best", "Selection"]

_AWAY = 5
"""After so many sums in a row without one of the hospitals that the comparison began with, nobody waits for it."""


@dataclass(frozen=True)
class Selection:
    """The best weights so far; weights are named by how many sums of updates are in them."""

    best: int = -1
    """-1 before any were judged."""
    loss: float | None = None
    """Pooled, over what is known of the held-out views of the silos that judged them."""
    silos: tuple[str, ...] = ()
    """Which silos those were, in order."""
    since: int = 0
    """How many later weights were judged by the same silos and were no better."""
    without: int = 0
    """How many sums in a row came without one of them."""

    def judged(self, weights: int, silos: Collection[str], sums: Mapping[str, float]) -> "Selection":
        """Return what holds after the sum in which `silos` told their held-out losses of `weights`.

        Losses over different hospitals are not comparable: some have patients who are easier to tell. The first that more
        hospitals judge, those of before among them, begin the comparison anew, and so do the first after a hospital was
        away for long. Others are neither chosen nor counted.
        """
        known = sums.get("held_out_known", 0.0)
        if known <= 0:
            return self
        loss, judging = sums["held_out_loss_known"] / known, tuple(sorted(silos))
        if not set(judging) >= set(self.silos) and self.without + 1 < _AWAY:
            return replace(self, without=self.without + 1)
        if self.loss is None or judging != self.silos or loss < self.loss:
            return Selection(weights, loss, judging)
        return replace(self, since=self.since + 1, without=0)

    def exhausted(self, patience: int | None) -> bool:
        """Return whether `patience` weights in a row were no better."""
        return patience is not None and self.since >= patience

    def content(self) -> dict[str, Any]:
        """Return the selection as it is kept in a file; `of` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Selection":
        """Return the selection that `content` gave."""
        return cls(**(dict(content) | {"silos": tuple(content["silos"])}))


@dataclass(frozen=True)
class Best:
    """A selection with the weights that it chose, float32 (P,), empty while there are none."""

    selection: Selection
    weights: NDArray[np.float32]

    @classmethod
    def none(cls) -> "Best":
        """Return what holds before any weights were judged, and for ever in a job that keeps the last."""
        return cls(Selection(), np.empty(0, dtype=np.float32))

    def judged(
        self, trained: int, weights: NDArray[np.float32], silos: Collection[str], sums: Mapping[str, float]
    ) -> "Best":
        """Return what holds after a sum that came with the held-out losses of `weights`, in which `trained` sums are."""
        selection = self.selection.judged(trained, silos, sums)
        return Best(selection, weights if selection.best != self.selection.best else self.weights)
