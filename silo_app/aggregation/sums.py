"""The server's side of a round: add what arrives, unopened. It holds no key and imports no cryptography."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import ring, tallies
from silo_app.aggregation.codec import WIDTHS, FieldPlan
from silo_app.aggregation.wire import KINDS, Header, body_digest, join, split
from silo_app.errors import RoundRefused, UpdateRefused

__all__ = ["RoundSum", "RoundSums", "blocks_of"]

REMEDY = "Nothing of it was used; the round goes on without it."


class RoundSum:
    """The running sum of one round: add every silo's message as it arrives, then take the result.

    What all must agree on (layout, key, width, participants, earlier sums) is fixed by `expected`, the header of an
    earlier message, or by the first message that arrives. Only the sum is kept: memory stays near two updates.
    """

    def __init__(self, job: str, round_number: int, *, min_silos: int = 2, expected: Header | None = None) -> None:
        """Begin the sum of round `round_number` of `job`, which needs `min_silos` updates."""
        self.job = job
        self.round_number = round_number
        self.min_silos = min_silos
        self.header = expected
        self._total: NDArray[np.uint64] | NDArray[np.float32] | None = None
        self._numbers: NDArray[np.uint64] | None = None
        self._seeds: dict[str, NDArray[np.uint8]] = {}

    @property
    def contributors(self) -> tuple[str, ...]:
        """Whose updates are in the sum, sorted."""
        return tuple(sorted(self._seeds))

    def add(self, message: NDArray[np.uint8] | bytes, *, silo: str | None = None) -> str:
        """Add one silo's update, uint8 (n,), and return the silo's name; `silo` is whom the transport says it is from.

        Raises `UpdateRefused` for what is malformed, of another silo than it says, or does not fit the others, and
        `RoundRefused` for another round or a silo's second update; the sum is then as it was.
        """
        return self.take(*split(message), silo)

    def take(self, header: Header, body: NDArray[np.uint8], silo: str | None) -> str:
        """Add an update that is split already, as `add` does."""
        name = header.silos[0]
        self._require_mine(header, silo)
        if header.encryption == "bfv":
            self._add_encrypted(name, header, body)
        else:
            self._add_plain(name, header, body)
        self.header = self.header or header
        return name

    def result(self) -> NDArray[np.uint8]:
        """Return the sum's message for all silos, uint8 (n,). Raises `RoundRefused` below `min_silos` updates."""
        if self.header is None or self._total is None or len(self._seeds) < self.min_silos:
            raise RoundRefused(
                f"round {self.round_number} has {len(self._seeds)} updates of the {self.min_silos} that it needs",
                where=", ".join(self.contributors),
                remedy="Look at the silos that did not answer, or lower the job's min_silos.",
            )
        if self.header.encryption == "bfv":
            seeds = [self._seeds[name].reshape(-1) for name in self.contributors]
            body = np.concatenate([ring.to_wire(self._total.view(np.uint64)), *seeds])
        else:
            parts = self._total.astype("<f4"), np.asarray(self._numbers).astype("<u8")
            body = np.concatenate([part.view(np.uint8) for part in parts])
        agreed = {slot: getattr(self.header, slot) for slot in Header.__slots__}
        own = {"kind": "sum", "silos": self.contributors, "body": body_digest(body)}
        return join(Header(**{**agreed, **own}), body)

    def _require_mine(self, header: Header, silo: str | None) -> None:
        """Refuse what is no update of this round, of a silo not heard yet, in agreement with the others."""
        name = header.silos[0]
        if header.kind != "update" or len(header.silos) != 1 or silo not in {None, name}:
            raise UpdateRefused(
                f"it is {KINDS[header.kind]} of {', '.join(header.silos)}, not an update of {silo or 'one silo'}",
                where=silo or name,
                remedy=REMEDY,
            )
        if (header.job, header.round_number) != (self.job, self.round_number) or name in self._seeds:
            raise RoundRefused(
                f"it is for round {header.round_number} of job {header.job}; this is round {self.round_number} of "
                f"{self.job}, with updates of {', '.join(self.contributors) or 'nobody'}",
                where=name,
                remedy=REMEDY,
            )
        if self.header is not None and header.agreement != self.header.agreement:
            raise _unlike(header, self.header, name)

    def _add_encrypted(self, name: str, header: Header, body: NDArray[np.uint8]) -> None:
        blocks = blocks_of(header)
        words_bytes = ring.wire_bytes(blocks)
        if not blocks or len(body) != words_bytes + blocks * ring.SEED_BYTES:
            raise UpdateRefused(
                f"{len(body)} bytes for {header.size} values of {header.bits} bits", where=name, remedy=REMEDY
            )
        if len(self._seeds) >= ring.MAX_SILOS:
            raise UpdateRefused(f"the sum is full with {ring.MAX_SILOS} silos", where=name, remedy=REMEDY)
        words = ring.from_wire(body[:words_bytes])
        if words.max() >= ring.MODULUS:
            raise UpdateRefused("its numbers are not below the ciphertext modulus", where=name, remedy=REMEDY)
        if self._total is None:
            self._total = words
        else:
            ring.add(self._total.view(np.uint64), words)
        self._seeds[name] = body[words_bytes:].reshape(blocks, ring.SEED_BYTES).copy()

    def _add_plain(self, name: str, header: Header, body: NDArray[np.uint8]) -> None:
        if len(body) != 4 * header.size + 8 * tallies.slots(len(header.numbers)):
            raise UpdateRefused(f"{len(body)} bytes for {header.size} plain values", where=name, remedy=REMEDY)
        values = np.frombuffer(body[: 4 * header.size].tobytes(), dtype="<f4").astype(np.float32)
        numbers = np.frombuffer(body[4 * header.size :].tobytes(), dtype="<u8").astype(np.uint64)
        if not np.isfinite(values).all():
            raise UpdateRefused("it has values that are not finite", where=name, remedy=REMEDY)
        if self._total is None or self._numbers is None:
            self._total, self._numbers = values, numbers
        else:
            self._total, self._numbers = self._total + values, self._numbers + numbers  # the numbers modulo 2^64
        self._seeds[name] = np.empty((0, ring.SEED_BYTES), dtype=np.uint8)


class RoundSums:
    """The sums of one round, one for each thing that silos agree on (`Header.agreement`): that of the most is the round's.

    Whose update comes first is not believed more than others: it could make all of them differ. What a silo alone says
    takes the memory of one update until the round is over.
    """

    def __init__(self, job: str, round_number: int, *, min_silos: int) -> None:
        """Begin the sums of round `round_number` of `job`, which needs `min_silos` updates that agree."""
        self._new = partial(RoundSum, job, round_number, min_silos=min_silos)
        self._sums: dict[tuple[object, ...], RoundSum] = {}

    @property
    def contributors(self) -> tuple[str, ...]:
        """Whose updates are in the round's sum, sorted."""
        return self._largest.contributors

    @property
    def others(self) -> dict[str, UpdateRefused]:
        """By silo, how its update differs from those in the round's sum."""
        usual = self._largest
        return {
            name: _unlike(one.header, usual.header, name)
            for one in self._sums.values()
            if one is not usual and one.header and usual.header
            for name in one.contributors
        }

    def add(self, message: NDArray[np.uint8] | bytes, *, silo: str) -> None:
        """Add one silo's update, uint8 (n,). Raises as `RoundSum.add`, but for what does not fit the others."""
        header, body = split(message)
        running = self._sums.get(header.agreement) or self._new()
        if any(silo in one.contributors for one in self._sums.values() if one is not running):
            raise RoundRefused("it sent another update before", where=silo, remedy=REMEDY)
        running.take(header, body, silo)
        self._sums[header.agreement] = running

    def result(self) -> NDArray[np.uint8]:
        """Return the message of the round's sum, uint8 (n,). Raises `RoundRefused` below `min_silos` updates that agree."""
        return self._largest.result()

    @property
    def _largest(self) -> RoundSum:
        return max(self._sums.values(), key=lambda one: len(one.contributors), default=self._new())


def blocks_of(header: Header) -> int:
    """Return how many blocks an encrypted message of `header` has; 0 for a header that no silo writes."""
    if not header.size:
        return 0 if header.bits else 1
    return FieldPlan(header.bits).blocks(header.size) + 1 if header.bits in WIDTHS else 0


def _unlike(header: Header, others: Header, silo: str) -> UpdateRefused:
    slots = [slot for slot in Header.__slots__ if slot not in {"kind", "silos", "body"}]
    different = [slot for slot in slots if getattr(header, slot) != getattr(others, slot)]
    return UpdateRefused(f"it differs from the others in {', '.join(different)}", where=silo, remedy=REMEDY)
