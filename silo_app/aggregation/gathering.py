"""The server's side of a round's masks: relay bundles, signatures and reveals, and know when a sum can be opened.

It checks what needs no key: that a message is of this round and of the silo that sent it, and whether enough has arrived.
Silos verify everything again; what is refused here saves a round that they would refuse.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from silo_app.errors import MessageInvalid, RoundRefused
from silo_app.identity import unverified_payload

__all__ = ["Gathering"]

REMEDY = "Nothing of it was used; the round goes on without it."


@dataclass(slots=True)
class Gathering:
    """What the server has gathered of one round: bundles first, then signatures under the survivors, then reveals."""

    job: str
    number: int
    threshold: int
    """How many signatures make silos reveal (`settings.threshold`)."""
    bundles: dict[str, bytes] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    signatures: dict[str, bytes] = field(default_factory=dict)
    reveals: dict[str, bytes] = field(default_factory=dict)
    _thresholds: dict[str, int] = field(default_factory=dict)
    _holders: dict[str, set[str]] = field(default_factory=dict)
    """By silo: who revealed a share that helps to take its masks off."""

    @property
    def participants(self) -> tuple[str, ...]:
        """Whose masks the round has, sorted."""
        return tuple(sorted(self.bundles))

    def add_bundle(self, silo: str, signed: bytes) -> None:
        """Take the bundle of `silo`. Raises `MessageInvalid`, or `RoundRefused` for one of another round or silo."""
        content = self._content(silo, signed)
        if not isinstance(content.get("threshold"), int):
            raise self._refused(silo, "its mask bundle has no threshold")
        self.bundles[silo], self._thresholds[silo] = signed, content["threshold"]

    def close_uploads(self, survivors: Collection[str]) -> tuple[str, ...]:
        """Fix whose messages arrived, once: the silos sign this set. Raises `RoundRefused` for another one later."""
        names = tuple(sorted(survivors))
        if not set(names) <= self.bundles.keys() or self.survivors not in {(), names}:
            raise self._refused(", ".join(names), "it is not the set of silos that was announced, or not of the round")
        self.survivors = names
        return names

    def add_signature(self, silo: str, signed: bytes) -> None:
        """Take the signature of `silo` under the survivors. Raises `MessageInvalid` or `RoundRefused`."""
        content = _unpacked(silo, signed)
        if not isinstance(content, list) or content[:2] != [self.job, self.number] or content[-1:] != [[*self.survivors]]:
            raise self._refused(silo, "it signed another round, or other survivors")
        self.signatures[silo] = signed

    @property
    def is_agreed(self) -> bool:
        """Whether enough silos signed that others will reveal."""
        return len(self.signatures) >= self.threshold

    def add_reveal(self, silo: str, signed: bytes) -> None:
        """Take what `silo` revealed. Raises `MessageInvalid` or `RoundRefused`."""
        content = self._content(silo, signed)
        if content.get("survivors") != [*self.survivors] or not isinstance(content.get("shares"), dict):
            raise self._refused(silo, "it revealed for other survivors")
        for other in content["shares"]:
            self._holders.setdefault(other, set()).add(silo)
        self.reveals[silo] = signed

    @property
    def missing(self) -> tuple[str, ...]:
        """Whose masks cannot be taken off yet: no seed from themselves, and too few shares from others."""
        return tuple(
            name
            for name in self.participants
            if not (name in self.survivors and name in self.reveals)
            and len(self._holders.get(name, ())) < self._thresholds[name]
        )

    @property
    def is_open(self) -> bool:
        """Whether silos can open the sum of the survivors."""
        return bool(self.survivors) and bool(self.reveals) and not self.missing

    def _content(self, silo: str, signed: bytes) -> Mapping[str, Any]:
        content = _unpacked(silo, signed)
        place = {"job": self.job, "number": self.number, "silo": silo}
        if not isinstance(content, dict) or any(content.get(key) != value for key, value in place.items()):
            raise self._refused(silo, "its message is of another round or silo")
        return content

    def _refused(self, silo: str, problem: str) -> RoundRefused:
        return RoundRefused(problem, where=f"{silo}, job {self.job}, round {self.number}", remedy=REMEDY)


def _unpacked(silo: str, signed: bytes) -> Any:
    try:
        return msgpack.unpackb(unverified_payload(signed))
    except (ValueError, RecursionError, msgpack.UnpackException):
        raise MessageInvalid("a mask message is damaged", where=silo, remedy=REMEDY) from None
