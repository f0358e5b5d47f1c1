"""The protocol of encrypted sums as two state machines without I/O: `SiloSession` at a silo, `ServerSum` at the server.

    announce -> receive_roster -> (receive_key) -> [encrypt_update -> open_sum] for every round

The place of the pairwise and self masks (Bonawitz et al. 2017) is between `pack` and `encrypt`, and between `decrypt` and
`unpack`. They are not there yet: until they are, a silo that colludes with the server can open another silo's update,
because all silos of a job share its key (docs/explanation-encryption.md).
"""

import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from silo_app.aggregation import cipher, codec, keys, wire
from silo_app.aggregation.layout import Layout
from silo_app.errors import KeyRefused, RoundRefused, UpdateRefused
from silo_app.identity import Identity

__all__ = ["AggregationSettings", "ServerSum", "SiloSession"]

_log = logging.getLogger(__name__)
_NO_KEY = "plain"


@dataclass(frozen=True)
class AggregationSettings:
    """How updates travel; `none` is for comparison only."""

    encryption: Literal["bfv", "none"] = "bfv"
    later_bits: Literal[10, 12, 16, 25] = 16


class SiloSession:
    """One silo's state in one job: keys, scales, what rounding lost, and which rounds it has opened."""

    def __init__(
        self,
        *,
        job: str,
        identity: Identity,
        layout: Layout,
        initial: NDArray[np.float32],
        settings: AggregationSettings,
        min_silos: int,
        samples: int,
    ) -> None:
        if initial.shape != (layout.size,):
            raise UpdateRefused(
                f"start weights of {initial.shape} for a layout of {layout.size} values",
                remedy="This is a bug; report it.",
            )
        self._identity = identity
        self._layout = layout
        self._settings = settings
        self._min_silos = min_silos
        self._private = X25519PrivateKey.generate()
        self._own = keys.Announcement(
            job=job,
            silo=identity.name,
            public_key=self._private.public_key().public_bytes_raw(),
            layout=layout.digest,
            start=hashlib.sha256(np.ascontiguousarray(initial, np.float32).tobytes()).hexdigest(),
            encryption=settings.encryption,
            samples=samples,
        )
        self._roster: keys.Roster | None = None
        self._key: cipher.JobKey | None = None
        self._key_id = _NO_KEY if settings.encryption == "none" else ""
        self._scales = codec.Scales.first(layout)
        self._residual = np.zeros(layout.size, np.float32)
        self._next_open = 0
        self._answered = -1
        self._rng = np.random.default_rng(secrets.randbits(128))
        if settings.encryption == "none":
            _log.warning("ENCRYPTION IS OFF for job %s: the server sees this silo's plain update", job)

    def announce(self) -> bytes:
        """Return our signed announcement."""
        return keys.announce(self._identity, self._own)

    def receive_roster(self, announcements: Mapping[str, bytes]) -> dict[str, bytes]:
        """Verify everybody; the first silo in name order makes the job's key and returns it wrapped for each other.

        Raises `KeyRefused` or `SignatureInvalid` naming the silo that is not as it must be.
        """
        if self._roster is not None:
            raise KeyRefused("a second roster came for this job", remedy="Submit the job again.")
        self._roster = keys.verified(self._identity.trust, self._own, announcements, self._min_silos)
        if self._settings.encryption == "none" or self._own.silo != self._leader:
            return {}
        self._use(cipher.JobKey.generate())
        assert self._key is not None  # noqa: S101  (set by the line above)
        secret = self._key.to_bytes()
        others = [silo for silo in self._roster.silos if silo != self._own.silo]
        return {silo: keys.wrap(self._private, self._roster, self._own.silo, silo, secret) for silo in others}

    def receive_key(self, wrapped: bytes) -> None:
        """Take the job's key from the first silo. Raises `KeyRefused`."""
        roster = self._agreed()
        if self._key is not None:
            raise KeyRefused("this silo has the job's key already", remedy="Submit the job again.")
        self._use(cipher.JobKey.from_bytes(keys.unwrap(self._private, roster, self._leader, self._own.silo, wrapped)))

    def samples_by_silo(self) -> dict[str, int]:
        """Return how many images each silo announced."""
        return {silo: one.samples for silo, one in self._agreed().silos.items()}

    def encrypt_update(self, number: int, update: NDArray[np.float32], participants: Sequence[str]) -> NDArray[np.uint8]:
        """Return our update, float32 (P,), of round `number` as a message, uint8 (bytes,).

        Raises `RoundRefused` for a round that was answered already, `UpdateRefused` for values that are not finite.
        """
        roster, names = self._agreed(), tuple(sorted(participants))
        self._require_participants(names)
        if number != self._next_open or number <= self._answered:
            raise RoundRefused(
                f"round {number} was asked for; this silo answered up to {self._answered} and opened {self._next_open}",
                remedy="A round is answered once, and in order. Submit the job again.",
            )
        if update.shape != (self._layout.size,) or not np.isfinite(update).all():
            raise UpdateRefused(
                "the update of this silo is not finite, or not of this network",
                remedy="Training diverged: lower the learning rate, or look at this silo's images.",
            )
        header = self._header(number, names)
        weight = roster.share(self._own.silo, names)
        self._answered = number
        if self._settings.encryption == "none":
            return wire.write(replace(header, parts=1), [(update * np.float32(weight)).astype("<f4").tobytes()])
        total = update + self._residual
        units = self._scales.units(self._layout, len(names))
        steps = codec.quantise(total, units, weight, self._scales.bits, len(names), self._rng)
        self._residual = total - codec.dequantise(steps, units, weight)
        slots = codec.pack(steps, self._scales.bits, cipher.modulus())
        key = self._held_key()
        return wire.write(replace(header, parts=-(-len(slots) // cipher.SLOTS)), key.encrypt(slots))

    def open_sum(self, number: int, message: NDArray[np.uint8] | bytes, contributors: Sequence[str]) -> NDArray[np.float32]:
        """Return the global update, float32 (P,), of round `number`; rounds are opened in order, each once.

        Raises `RoundRefused` for too few contributors or another round, `KeyRefused` for another key, `UpdateRefused`
        for another layout or values that are not finite.
        """
        roster = self._agreed()
        header, parts = wire.read(message)
        self._check_sum(header, number, contributors)
        arrived = sum(roster.share(silo, header.participants) for silo in header.silos)
        if self._settings.encryption == "none":
            mean = self._plain(list(parts)) / np.float32(arrived)
        else:
            slots = self._held_key().decrypt(parts, codec.slots_of(self._layout.size, header.bits))
            steps = codec.unpack(slots, self._layout.size, header.bits, cipher.modulus())
            units = self._scales.units(self._layout, len(header.participants))
            mean = codec.dequantise(steps, units, arrived)
        if not np.isfinite(mean).all():
            raise UpdateRefused("the sum is not finite", remedy="One silo's training diverged; lower the learning rate.")
        self._next_open = number + 1
        self._scales = codec.Scales.after(self._layout, mean, self._settings.later_bits)
        return mean

    @property
    def _leader(self) -> str:
        return min(self._agreed().silos)

    def _agreed(self) -> keys.Roster:
        if self._roster is None:
            raise KeyRefused("this silo has not seen the job's roster", remedy="Submit the job again.")
        return self._roster

    def _held_key(self) -> cipher.JobKey:
        if self._key is None:
            raise KeyRefused("this silo has not got the job's key", remedy="It takes part again in the next job.")
        return self._key

    def _use(self, key: cipher.JobKey) -> None:
        self._key = key
        self._key_id = hashlib.sha256(b"siloscope/key-id/1" + key.to_bytes()).hexdigest()[:32]

    def _header(self, number: int, participants: tuple[str, ...]) -> wire.Header:
        self._held_key() if self._settings.encryption == "bfv" else None
        return wire.Header(
            kind="update",
            encryption=self._settings.encryption,
            job=self._own.job,
            round_number=number,
            key_id=self._key_id,
            layout=self._layout.digest,
            bits=self._scales.bits,
            parts=0,
            participants=participants,
            silos=(self._own.silo,),
        )

    def _require_participants(self, names: tuple[str, ...]) -> None:
        strangers = [name for name in names if name not in self._agreed().silos]
        if strangers or len(set(names)) != len(names) or self._own.silo not in names:
            raise RoundRefused(
                f"the participants of the round are not silos of this job: {strangers or names}",
                remedy="The server announced them wrongly; submit the job again.",
            )
        if len(names) < self._min_silos:
            raise RoundRefused(
                f"a round of {len(names)} silos; this silo wants at least {self._min_silos}",
                remedy="Wait for more silos, or lower training.min_silos in silo.yaml (2 at least).",
            )

    def _check_sum(self, header: wire.Header, number: int, contributors: Sequence[str]) -> None:
        if number != self._next_open or header.round_number != number or header.kind != "sum":
            raise RoundRefused(
                f"the sum is of round {header.round_number}; this silo opens round {self._next_open} next",
                remedy="Sums are opened once and in order. It takes part again in the next job.",
            )
        if (header.job, header.key_id, header.encryption) != (self._own.job, self._key_id, self._settings.encryption):
            raise KeyRefused("the sum is of another job or under another key", remedy="Submit the job again.")
        if header.layout != self._layout.digest or header.bits != self._scales.bits:
            raise UpdateRefused("the sum is of another network", remedy="Submit the job again.")
        self._require_participants(header.participants)
        if sorted(header.silos) != sorted(contributors) or not set(header.silos) <= set(header.participants):
            raise RoundRefused("the sum's contributors are not those that were announced", remedy="Submit the job again.")
        if len(set(header.silos)) < self._min_silos:
            raise RoundRefused(
                f"a sum of {len(set(header.silos))} silos; this silo opens sums of at least {self._min_silos}",
                remedy="A smaller sum would show a single silo's update. Wait for more silos.",
            )

    def _plain(self, parts: list[bytes]) -> NDArray[np.float32]:
        if len(parts) != 1 or len(parts[0]) != 4 * self._layout.size:
            raise UpdateRefused("the plain sum has another size", remedy="Submit the job again.")
        return np.frombuffer(parts[0], "<f4").astype(np.float32)


class ServerSum:
    """One round's sum at the server: checks headers, adds ciphertexts as they arrive, never has a key."""

    def __init__(self, *, job: str, round_number: int, participants: Sequence[str]) -> None:
        self._job = job
        self._number = round_number
        self._participants = tuple(sorted(participants))
        self._first: wire.Header | None = None
        self._sum: cipher.Sum | None = None
        self._plain: NDArray[np.float32] | None = None
        self._silos: list[str] = []

    @property
    def contributors(self) -> tuple[str, ...]:
        """Whose updates are in the sum, in name order."""
        return tuple(sorted(self._silos))

    def add(self, silo: str, message: NDArray[np.uint8] | bytes) -> None:
        """Add one silo's update. Raises `UpdateRefused` or `RoundRefused`, and then nothing of it was added."""
        header, parts = wire.read(message)
        self._check(silo, header)
        if header.encryption == "none":
            self._add_plain(b"".join(parts))
        else:
            if self._sum is None:
                self._sum = cipher.Sum(header.parts)
            self._sum.add(parts)
        self._first = self._first or header
        self._silos.append(silo)

    def result(self) -> NDArray[np.uint8]:
        """Return the sum as a message, uint8 (bytes,). Raises `RoundRefused` if nothing was added."""
        if self._first is None:
            raise RoundRefused(f"no update arrived in round {self._number}", remedy="Look at the silos' logs.")
        header = replace(self._first, kind="sum", silos=self.contributors)
        if self._plain is not None:
            return wire.write(header, [self._plain.tobytes()])
        assert self._sum is not None  # noqa: S101  (one of the two was made by `add`)
        return wire.write(header, self._sum.ciphertexts())

    def _check(self, silo: str, header: wire.Header) -> None:
        if header.kind != "update" or header.job != self._job or header.round_number != self._number:
            raise RoundRefused(
                f"an update of round {header.round_number} came in round {self._number}",
                remedy="It was late or repeated; the silo answers the next round.",
            )
        if header.silos != (silo,) or header.participants != self._participants or silo in self._silos:
            raise RoundRefused(
                f"{silo} answered twice, for another silo, or for another set of participants",
                remedy="Nothing of it was used; look at that silo.",
            )
        first = self._first
        same = ("encryption", "key_id", "layout", "bits", "parts")
        if first is not None and any(getattr(header, name) != getattr(first, name) for name in same):
            raise UpdateRefused(
                f"{silo} uses another key, network or field width than the others",
                remedy="Nothing of it was used; look at that silo.",
            )

    def _add_plain(self, content: bytes) -> None:
        values = np.frombuffer(content, "<f4")
        if self._plain is not None and len(values) != len(self._plain):
            raise UpdateRefused("a plain update of another size", remedy="Nothing of it was used; look at that silo.")
        self._plain = values.copy() if self._plain is None else self._plain + values
