"""What the server asks of a silo in one round; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from silo_app.encoder.ledger import ClosedRound

__all__ = ["RoundOrder"]


@dataclass(frozen=True, kw_only=True)
class RoundOrder:
    """What the server asks for in one round."""

    number: int
    """Of the masked rounds of the job."""
    content: str
    """"statistics": numbers alone, from which weights come; "update": train; "numbers": how the last weights do."""
    training_round: int | None
    """Which round of the training this is, from 0; None for the statistics."""
    participants: Mapping[str, bytes]
    """The mask bundle of every silo that takes part; empty bytes without encryption."""
    wrapped_key: bytes | None
    last: ClosedRound | None
    """The round before, to open first; none in round 0."""
