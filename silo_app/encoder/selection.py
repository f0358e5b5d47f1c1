"""Which round's weights a training keeps, and when it may end early: decided by every silo for itself; pure.

Every silo opens the same sums in the same order, also one that catches up, so all come to the same decision without a word.
Losses are compared over the same hospitals only: some have patients who are easier to tell.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Best", "Candidate", "Selection"]

_AWAY = 5
"""Where the same hospitals judged so often since all did, the others are not expected back."""
_NONE = np.empty(0, dtype=np.float32)


@dataclass(frozen=True)
class Candidate:
    """The best weights by the word of the same hospitals; weights are named by how many sums of updates are in them."""

    silos: tuple[str, ...]
    """Which hospitals, in order."""
    best: int
    loss: float
    """Pooled, over what is known of their held-out views."""
    since: int = 0
    """How many later weights they judged, none of them better."""
    alone: int = 1
    """How often they judged since the other candidate's hospitals did."""

    def judged(self, weights: int, loss: float) -> "Candidate":
        """Return what holds after they judged other weights."""
        if loss < self.loss:
            return Candidate(self.silos, weights, loss, alone=self.alone + 1)
        return replace(self, since=self.since + 1, alone=self.alone + 1)


@dataclass(frozen=True)
class Selection:
    """At most two candidates: of the most hospitals that ever judged together, and of those that did last beside them.

    The first counts, unless the others have judged alone for so long that whoever is missing will not come back.
    """

    candidates: tuple[Candidate, ...] = ()

    def judged(self, weights: int, silos: Collection[str], sums: Mapping[str, float]) -> "Selection":
        """Return what holds after the sum in which `silos` told their held-out losses of `weights`."""
        known = sums.get("held_out_known", 0.0)
        if known <= 0:
            return self
        loss, judging = sums["held_out_loss_known"] / known, tuple(sorted(silos))
        if judging in (one.silos for one in self.candidates):
            return Selection(
                tuple(
                    one.judged(weights, loss) if one.silos == judging else replace(one, alone=0) for one in self.candidates
                )
            )
        new, before = Candidate(judging, weights, loss), [replace(one, alone=0) for one in self.candidates]
        if before and len(judging) <= len(before[0].silos):
            return Selection((before[0], new))
        return Selection((new, *before[:1]))

    @property
    def chosen(self) -> int | None:
        """Which candidate counts; None before there is any."""
        if not self.candidates:
            return None
        return int(len(self.candidates) > 1 and self.candidates[1].alone >= _AWAY)

    @property
    def best(self) -> int:
        """The best weights; -1 before any were judged."""
        return -1 if self.chosen is None else self.candidates[self.chosen].best

    def exhausted(self, patience: int | None) -> bool:
        """Return whether `patience` weights in a row were no better."""
        return patience is not None and self.chosen is not None and self.candidates[self.chosen].since >= patience

    def content(self) -> dict[str, Any]:
        """Return the selection as it is kept in a file; `of` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Selection":
        """Return the selection that `content` gave; an empty one for what an earlier version kept."""
        kept = content.get("candidates", ())
        return cls(tuple(Candidate(**(dict(one) | {"silos": tuple(one["silos"])})) for one in kept))


@dataclass(frozen=True)
class Best:
    """A selection with the weights of its candidates, float32 (P,) each."""

    selection: Selection
    kept: tuple[NDArray[np.float32], ...] = field(default=())

    @classmethod
    def none(cls) -> "Best":
        """Return what holds before any weights were judged, and for ever in a job that keeps the last."""
        return cls(Selection())

    @classmethod
    def of(cls, content: Mapping[str, Any], flat: NDArray[np.float32]) -> "Best":
        """Return what `selection.content` and `flat` gave."""
        selection = Selection.of(content)
        return cls(selection, tuple(np.split(flat, len(selection.candidates)))) if selection.candidates else cls.none()

    @property
    def weights(self) -> NDArray[np.float32]:
        """The best weights, float32 (P,), empty while there are none."""
        chosen = self.selection.chosen
        return _NONE if chosen is None else self.kept[chosen]

    @property
    def flat(self) -> NDArray[np.float32]:
        """All candidates' weights, one after the other, for a file."""
        return np.concatenate([_NONE, *self.kept])

    def judged(
        self, trained: int, weights: NDArray[np.float32], silos: Collection[str], sums: Mapping[str, float]
    ) -> "Best":
        """Return what holds after a sum that came with the held-out losses of `weights`, in which `trained` sums are."""
        selection = self.selection.judged(trained, silos, sums)
        known: Sequence[tuple[int, NDArray[np.float32]]] = [
            (trained, weights),
            *((one.best, kept) for one, kept in zip(self.selection.candidates, self.kept, strict=True)),
        ]
        by_best = dict(reversed(known))
        return Best(selection, tuple(by_best[one.best] for one in selection.candidates))
