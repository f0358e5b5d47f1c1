"""How a job aggregates: what all its silos must have set alike."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

import msgpack

from silo_app.aggregation.codec import WIDTHS
from silo_app.errors import ConfigInvalid

__all__ = ["AggregationSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationSettings:
    """Encryption, field widths and scales of one job."""

    encryption: Literal["bfv", "none"] = "bfv"
    """"none" sends plain updates, for comparison only."""
    first_bits: int = 25
    """Width of a field in the first round, when no scale is known yet."""
    bits: int = 16
    """Width of a field in later rounds; 12 halves a float32 update, 10 is smaller still."""
    first_clip: float = 1.0
    """The largest change of one weight that the first round carries; more is carried over to the next."""
    headroom: float = 4.0
    """How many times the last round's largest change (per tensor) a round can carry."""
    persistence: float = 0.9
    """What share of a tensor's scale outlasts a round whose sum was small: silos' updates may cancel in the sum."""
    min_scale: float = 1e-6
    """No tensor's scale falls below this change of a weight."""

    def __post_init__(self) -> None:
        """Refuse values that no silo can work with, all at once."""
        problems = []
        if self.encryption not in {"bfv", "none"}:
            problems.append(f"encryption: {self.encryption!r} is neither bfv nor none")
        problems += [
            f"{name}: {value} is none of {', '.join(map(str, WIDTHS))}"
            for name, value in (("first_bits", self.first_bits), ("bits", self.bits))
            if value not in WIDTHS
        ]
        problems += [
            f"{name}: {value} is not between {low:g} and {high:g}"
            for name, value, low, high in (
                ("first_clip", self.first_clip, 1e-6, 1e6),
                ("headroom", self.headroom, 1.0, 1e3),
                ("persistence", self.persistence, 0.0, 1.0),
                ("min_scale", self.min_scale, 1e-12, 1.0),
            )
            if not low <= value <= high
        ]
        if problems:
            raise ConfigInvalid("\n".join(problems), where="aggregation", remedy="Correct the job's settings.")

    @property
    def digest(self) -> bytes:
        """SHA-256 over all of it, for silos to compare."""
        return sha256(msgpack.packb(sorted(asdict(self).items()))).digest()

    def width(self, round_number: int) -> int:
        """Return the bits of a field in a round."""
        return self.first_bits if round_number == 0 else self.bits
