"""Where a message of a masked round belongs: one round of one job of exactly these silos."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from silo_app.aggregation.keys import Roster
from silo_app.aggregation.masking import derive
from silo_app.identity import Trust

__all__ = ["Members", "Place"]


@dataclass(frozen=True, slots=True)
class Members:
    """The silos of a job as a round needs them; all that is kept of an old job to open its sums."""

    job: str
    roster: bytes
    """Digest of the silos' announcements."""
    names: tuple[str, ...]
    """Sorted; a silo's position, from 1, is its place in Shamir's sharing."""
    trust: Trust = field(repr=False)
    publics: Mapping[str, bytes] = field(default_factory=dict)
    """The silos' X25519 keys of the job."""

    @classmethod
    def of(cls, job: str, roster: Roster, trust: Trust) -> "Members":
        """Return the members that `roster` names."""
        publics = {name: one.public for name, one in roster.announcements.items()}
        return cls(job, roster.digest, tuple(sorted(publics)), trust, publics)

    def position(self, silo: str) -> int:
        """Return the place of `silo` in Shamir's sharing, from 1."""
        return self.names.index(silo) + 1


@dataclass(frozen=True, slots=True)
class Place:
    """One round of one job."""

    members: Members
    number: int

    def __str__(self) -> str:
        """Return the place as messages name it."""
        return f"job {self.members.job}, round {self.number}"

    def key(self, secret: bytes, *purpose: bytes | str) -> bytes:
        """Return a key for `purpose` in this round alone."""
        info = msgpack.packb([*purpose, self.members.job, self.number])
        return derive(secret, salt=self.members.roster, info=info)

    def seal(self, private: X25519PrivateKey, other: str, *, sender: str, receiver: str) -> AESGCM:
        """Return the cipher for what `sender` tells `receiver` in this round; `other` is whichever is not this silo."""
        shared = private.exchange(X25519PublicKey.from_public_bytes(self.members.publics[other]))
        return AESGCM(self.key(shared, b"siloscope/share-seal/1", sender, receiver))
