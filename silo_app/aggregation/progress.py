"""Where a silo stands in a job, and the form in which it outlasts the process: no pickle, one digest over everything.

b"SILP"  version uint16  SHA-256 of what follows  msgpack map    (little-endian)
"""

import struct
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Self

import msgpack
import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.layout import Layout
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.wire import parse_map
from silo_app.errors import CheckpointInvalid, ProtocolError

__all__ = ["EarlierJob", "Progress", "Sent", "State", "begun", "entering", "resumed", "undone"]

MAGIC = b"SILP"
VERSION = 1
PREFIX = struct.Struct("<4sH32s")


@dataclass(frozen=True, slots=True)
class Sent:
    """What this silo gave to a round, kept until the round's sum is opened."""

    job: str
    participants: tuple[str, ...]
    residual: NDArray[np.float32] | None
    """What the sum will lack if it contains this silo, float32 (P,)."""


@dataclass(slots=True)
class Progress:
    """Where the job stands; all but the last five fields are the same at every silo."""

    basis: bytes
    """Digest chain over all rounds closed."""
    scales: NDArray[np.float64]
    """The largest change that the next round carries, float64 (T,)."""
    first_job: str
    """The job in which the first round was."""
    next_round: int = 0
    measured: bool = False
    """Whether a sum has shown how large updates are."""
    norm: float = 0.0
    """The largest norm of a sum so far."""
    total: int = 0
    """N, the images of all `counted` silos; 0 before the statistics."""
    counted: tuple[str, ...] = ()
    samples: int = 0
    """This silo's images, as it counted them."""
    answered: int = -1
    """The last round that this silo gave something to."""
    rejected: str = ""
    """Why this silo's own acceptance test refused the last sum of updates; empty if it did not."""
    residual: NDArray[np.float32] | None = None
    """What rounding and clipping lost so far, float32 (P,)."""
    sent: Sent | None = None


@dataclass(frozen=True, slots=True)
class EarlierJob:
    """What opens the sums of a job that was resumed."""

    job: str
    roster: bytes
    names: tuple[str, ...]
    secret: bytes = field(repr=False)

    def content(self) -> list[Any]:
        """Return it as it is packed."""
        return [self.job, self.roster, list(self.names), self.secret]

    @classmethod
    def of(cls, content: object) -> Self:
        """Return it from what `content` gave. Raises `TypeError` for anything else."""
        if not isinstance(content, list) or [type(part) for part in content] != [str, bytes, list, bytes]:
            raise TypeError("no job")
        job, roster, names, secret = content
        return cls(job, roster, tuple(str(name) for name in names), secret)


TYPES: dict[str, type] = {
    "silo": str,
    "layout": bytes,
    "settings": bytes,
    "basis": bytes,
    "scales": bytes,
    "first_job": str,
    "next_round": int,
    "measured": bool,
    "norm": float,
    "total": int,
    "counted": list,
    "samples": int,
    "answered": int,
    "rejected": str,
    "residual": bytes,
    "sent": list,
    "earlier": list,
}


@dataclass(frozen=True, slots=True)
class State:
    """All that a silo needs to go on with a job in another process."""

    silo: str
    layout: bytes
    settings: bytes
    progress: Progress
    earlier: tuple[EarlierJob, ...]

    def packed(self) -> bytes:
        """Return the state as bytes; they hold keys, so whoever keeps them keeps them to itself."""
        progress = self.progress
        sent = progress.sent
        content: dict[str, Any] = {
            key: getattr(progress, key) for key in TYPES if key in Progress.__slots__ and key not in {"sent", "residual"}
        }
        content |= {
            "silo": self.silo,
            "layout": self.layout,
            "settings": self.settings,
            "scales": progress.scales.astype("<f8").tobytes(),
            "residual": _octets(progress.residual),
            "sent": [sent.job, list(sent.participants), _octets(sent.residual)] if sent else [],
            "earlier": [one.content() for one in self.earlier],
        }
        packed = msgpack.packb(content)
        return PREFIX.pack(MAGIC, VERSION, sha256(packed).digest()) + bytes(packed)

    def require(self, silo: str, layout: bytes, settings: bytes) -> None:
        """Refuse another silo's state, or one of another encoder or other settings."""
        if (self.silo, self.layout, self.settings) != (silo, layout, settings):
            raise _invalid(f"it is of silo {self.silo}, or of another encoder or other settings")

    @classmethod
    def read(cls, octets: bytes, *, tensors: int, size: int) -> Self:
        """Return the state in `octets`, for T `tensors` of `size` values. Raises `CheckpointInvalid`."""
        if len(octets) < PREFIX.size:
            raise _invalid("it is cut short")
        magic, version, digest = PREFIX.unpack(octets[: PREFIX.size])
        if (magic, version) != (MAGIC, VERSION):
            raise _invalid(f"it starts with {magic!r}, version {version}, not {MAGIC!r}, version {VERSION}")
        packed = memoryview(octets)[PREFIX.size :]
        if sha256(packed).digest() != digest:
            raise _invalid("it is damaged")
        try:
            content = parse_map(bytes(packed), TYPES, refuse=ProtocolError, what="the state of a job")
        except ProtocolError as error:
            raise _invalid(error.problem) from None
        return cls._of(content, tensors, size)

    @classmethod
    def _of(cls, content: dict[str, Any], tensors: int, size: int) -> Self:
        plain = {key: value for key, value in content.items() if key in Progress.__slots__}
        sent = content["sent"]
        progress = Progress(
            **{
                **plain,
                "scales": _array(content["scales"], "<f8", tensors),
                "counted": tuple(content["counted"]),
                "residual": _array(content["residual"], "<f4", size) if content["residual"] else None,
                "sent": Sent(sent[0], tuple(sent[1]), _array(sent[2], "<f4", size) if sent[2] else None) if sent else None,
            }
        )
        earlier = tuple(EarlierJob.of(one) for one in content["earlier"])
        return cls(content["silo"], content["layout"], content["settings"], progress, earlier)


def begun(layout: Layout, initial: bytes, settings: AggregationSettings, *, first_job: str, samples: int) -> Progress:
    """Return where a silo with `samples` images stands before the first round; `initial` is the start weights' digest."""
    basis = sha256(b"siloscope/basis/2" + layout.digest + initial + settings.digest).digest()
    return Progress(basis, np.full(len(layout.names), settings.first_clip), first_job, samples=samples)


def entering(
    silo: str,
    layout: Layout,
    initial: bytes,
    settings: AggregationSettings,
    *,
    samples: int,
    earlier: tuple[EarlierJob, ...],
) -> bytes:
    """Return the state of a silo that was in none of the jobs `earlier`, oldest first, and opens their rounds now."""
    progress = begun(layout, initial, settings, first_job=earlier[0].job, samples=samples)
    return State(silo, layout.digest, settings.digest, progress, earlier).packed()


def resumed(
    octets: bytes, silo: str, layout: Layout, settings: AggregationSettings
) -> tuple[Progress, tuple[EarlierJob, ...]]:
    """Return where an earlier job left off. Raises `CheckpointInvalid` for another silo, encoder or settings."""
    kept = State.read(octets, tensors=len(layout.names), size=layout.size)
    kept.require(silo, layout.digest, settings.digest)
    kept.progress.answered = kept.progress.next_round - 1  # under new keys the open round is answered anew
    return kept.progress, kept.earlier


def undone(progress: Progress, octets: bytes, layout: Layout) -> Progress:
    """Return `progress` without what the update taught whose sum was opened after the state `octets` was kept."""
    before = State.read(octets, tensors=len(layout.names), size=layout.size).progress
    learned = {name: getattr(before, name) for name in ("scales", "measured", "norm", "rejected", "residual")}
    return replace(progress, **learned)


def _octets(values: NDArray[np.float32] | None) -> bytes:
    return b"" if values is None else values.astype("<f4").tobytes()


def _array(octets: bytes, kind: str, size: int) -> NDArray[Any]:
    values = np.frombuffer(octets, dtype=kind)
    if len(values) != size:
        raise _invalid(f"it has {len(values)} values where the encoder has {size}")
    return values.astype(kind[1:])


def _invalid(problem: str) -> CheckpointInvalid:
    return CheckpointInvalid(
        f"the kept state of a training job cannot be used: {problem}",
        remedy="This silo cannot take part in the resumed job; it takes part again in the next job.",
    )
