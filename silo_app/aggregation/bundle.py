"""What a silo tells the others before a round: digests of its secrets, and sealed shares of them. It opens none.

So a relay can look at it too (`vetting`), without what splits and joins secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import msgpack
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation.keys import is_usable
from silo_app.aggregation.place import Place
from silo_app.aggregation.wire import NAME_LIMIT, parse_map
from silo_app.errors import KeyRefused

__all__ = ["BUNDLE", "PAIR", "SECRET_BYTES", "SELF", "Bundle", "private_key", "read_bundle", "share_digest"]

BUNDLE = b"siloscope/mask-bundle/1"
SECRET_BYTES = 16
DIGEST_BYTES = 32
REMEDY = "Nothing of it was used. If it repeats, ask this silo which version it runs."
SELF, PAIR = "self", "pair"
"""The two secrets; a silo's share of one of them is revealed, never of both."""


def private_key(pair_seed: bytes) -> X25519PrivateKey:
    """Return the key of a round's pairwise masks."""
    return X25519PrivateKey.from_private_bytes(sha256(b"siloscope/mask-key/1" + pair_seed).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a silo tells the others before a round."""

    job: str
    number: int
    silo: str
    roster: bytes
    threshold: int
    """How many silos' shares make a secret of this silo."""
    public: bytes
    """X25519 key of the pairwise masks."""
    commitment: bytes
    """Digest of the self mask's seed."""
    sealed: Mapping[str, bytes]
    """By receiver: its share of both secrets, sealed."""
    digests: Mapping[str, bytes]
    """By receiver: digests of its share of the self mask's seed and of the pairwise secret, one after the other."""

    def expects(self, place: Place, kind: str, silo: str, share: bytes) -> bool:
        """Return whether `share` is the one that `silo` was dealt."""
        both = self.digests.get(silo, b"")
        own = both[:DIGEST_BYTES] if kind == SELF else both[DIGEST_BYTES:]
        return share_digest(place, kind, self.silo, silo, share) == own

    def matches(self, place: Place, kind: str, secret: bytes) -> bool:
        """Return whether `secret` is the one that this bundle was made with."""
        if len(secret) != SECRET_BYTES:
            return False
        if kind == SELF:
            return share_digest(place, SELF, self.silo, "", secret) == self.commitment
        return private_key(secret).public_key().public_bytes_raw() == self.public


TYPES: dict[str, type] = {
    "job": str,
    "number": int,
    "silo": str,
    "roster": bytes,
    "threshold": int,
    "public": bytes,
    "commitment": bytes,
    "sealed": dict,
    "digests": dict,
}


def share_digest(place: Place, kind: str, dealer: str, receiver: str, share: bytes) -> bytes:
    """Return the digest of a share (of a whole secret without `receiver`); 128 random bits hide behind it."""
    return sha256(
        msgpack.packb(["siloscope/share/1", place.members.job, place.number, kind, dealer, receiver, share])
    ).digest()


def read_bundle(name: str, signed: bytes, place: Place) -> Bundle:
    """Verify a bundle that came as that of the silo `name`.

    Raises `MessageInvalid`, `SignatureInvalid`, or `KeyRefused` for one of another round, job, roster or silo.
    """
    verified = place.members.trust.verify(signed, context=BUNDLE)
    bundle = Bundle(**parse_map(verified.payload, TYPES, refuse=KeyRefused, what=f"the mask bundle of {name}"))
    others = set(place.members.names) - {name}
    problem = ""
    if not verified.name == bundle.silo == name or name not in place.members.names:
        problem = f"it is signed by {verified.name} and speaks of {bundle.silo[:NAME_LIMIT]}"
    elif (bundle.job, bundle.number, bundle.roster) != (place.members.job, place.number, place.members.roster):
        problem = f"it is of round {bundle.number} of job {bundle.job[:NAME_LIMIT]}, or of another list of silos"
    elif not 2 <= bundle.threshold <= len(place.members.names):
        problem = f"its threshold is {bundle.threshold} of {len(place.members.names)} silos"
    elif bundle.sealed.keys() != others or bundle.digests.keys() != others:
        problem = "it does not have a share for every other silo"
    elif any(not isinstance(part, bytes) for part in (*bundle.sealed.values(), *bundle.digests.values())):
        problem = "its shares are no bytes"
    elif not is_usable(bundle.public):
        problem = "its X25519 key is none"
    if problem:
        raise KeyRefused(f"its mask bundle was refused: {problem}", where=f"{name}, {place}", remedy=REMEDY)
    return bundle
