"""A silo's own test of weights on its held-out patients: its trainer computes, `acceptance` judges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from silo_app.config import AcceptanceSettings
from silo_app.encoder.acceptance import why_rejected
from silo_app.encoder.trainer import Trainer
from silo_app.errors import SumRejected, UpdateRefused

__all__ = ["OwnTest"]


@dataclass(frozen=True)
class OwnTest:
    """What a silo tests beside the last weights that passed; `before` is how these did."""

    trainer: Trainer
    settings: AcceptanceSettings

    def why(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
        """Return why weights that did `after` are rejected; empty if they pass."""
        return why_rejected(before, after, self.settings)

    def stands_aside(self, why: str, number: int) -> SumRejected:
        """Return the error of a silo that gives nothing, since the sum before round `number` failed."""
        return SumRejected(
            f"this silo gives nothing to the next round: {why}",
            where=f"round {number}",
            remedy="It takes part again when a later sum passes. Look at silo.yaml's training.acceptance and the other "
            "silos' data.",
        )

    def require_best(self, weights: str, before: Mapping[str, Any], number: int) -> None:
        """Raise `SumRejected` if the best weights, of round `number`, fail."""
        if why := self.why(before, self.trainer.request("evaluate", weights=weights)):
            raise SumRejected(
                f"the best weights of all silos fail this silo's own test: {why}",
                where=f"round {number}",
                remedy="Look at silo.yaml's training.acceptance and the other silos' data.",
            )

    def require_update(self, trained: Mapping[str, Any], before: Mapping[str, Any], number: int) -> None:
        """Raise `UpdateRefused` if what this silo trained by itself in round `number` fails.

        Asked where the round's first sum was undone. A sum does not say whose update spoiled it, but who sent a broken one
        without knowing, since its data or its machine is damaged, can find it out.
        """
        result = self.trainer.request("evaluate", weights=trained["weights"], personal=trained.get("personal"))
        if why := self.why(before, result):
            raise UpdateRefused(
                f"this silo gives nothing to the round, whose first sum was undone: of its own update, {why}",
                where=f"round {number}",
                remedy="Look at this silo's images, labels and hardware: it may be the one that spoiled the sum.",
            )
