"""How a job aggregates: what all its silos must have set alike."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

import msgpack

from silo_app.aggregation.codec import WIDTHS
from silo_app.errors import ConfigInvalid

__all__ = ["AggregationSettings", "threshold"]


def threshold(silos: int, min_silos: int) -> int:
    """Return T: how many of a job's `silos` must sign who arrived, and how many shares make a secret.

    T is at least `min_silos` = k. With T > (n + c) / 2 no two survivor sets find T signatures each, even if c = k - 2 silos
    sign both (Bonawitz et al. 2017, section 6.3).
    """
    return min(silos, max(min_silos, (silos + min_silos - 2) // 2 + 1))


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
    norm_growth: float = 30.0
    """A sum whose norm is so many times that of all before it is refused as an outlier."""
    norm_limit: float = 0.0
    """The largest norm of a sum, from the first round on; 0 sets none."""

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
                ("norm_growth", self.norm_growth, 1.0, 1e6),
                ("norm_limit", self.norm_limit, 0.0, 1e9),
            )
            if not low <= value <= high
        ]
        if problems:
            raise ConfigInvalid("\n".join(problems), where="aggregation", remedy="Correct the job's settings.")

    @property
    def digest(self) -> bytes:
        """SHA-256 over all of it, for silos to compare."""
        return sha256(msgpack.packb(sorted(asdict(self).items()))).digest()

    def width(self, *, measured: bool) -> int:
        """Return the bits of a field; `measured` says whether a sum has shown yet how large updates are."""
        return self.bits if measured else self.first_bits
