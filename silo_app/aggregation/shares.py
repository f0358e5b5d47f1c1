"""A silo's secrets of one round, and their shares: so that others can take its masks off when it cannot.

Two secrets of 128 bits: from one comes the self mask, from the other the X25519 key of the pairwise masks. Both are
Shamir-shared (Shamir 1979, over GF(2^128), pycryptodome), each other silo's share sealed for it alone. A signed bundle
carries the seals beside digests of everything, so that a wrong share is noticed and has an author.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256

import msgpack
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation.keys import is_usable
from silo_app.aggregation.place import Place
from silo_app.aggregation.wire import NAME_LIMIT, parse_map
from silo_app.errors import KeyRefused
from silo_app.identity import Identity

__all__ = ["Bundle", "Secrets", "deal", "join_shares", "open_share", "read_bundle"]

BUNDLE = b"siloscope/mask-bundle/1"
SECRET_BYTES = 16
NONCE_BYTES = 12
DIGEST_BYTES = 32
REMEDY = "Nothing of it was used. If it repeats, ask this silo which version it runs."
SELF, PAIR = "self", "pair"
"""The two secrets; a silo's share of one of them is revealed, never of both."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a silo makes for one round and shows nobody."""

    self_seed: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(SECRET_BYTES))
    pair_seed: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(SECRET_BYTES))


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


def deal(own: Secrets, place: Place, threshold: int, *, private: X25519PrivateKey, identity: Identity) -> bytes:
    """Return this silo's signed bundle; `private` is its X25519 key of the job."""
    names, dealer = place.members.names, identity.name
    dealt = [Shamir.split(threshold, len(names), secret) for secret in (own.self_seed, own.pair_seed)]
    sealed, digests = {}, {}
    for receiver in names:
        if receiver == dealer:
            continue
        of_self, of_pair = (shares[place.members.position(receiver) - 1][1] for shares in dealt)
        nonce = os.urandom(NONCE_BYTES)
        seal = place.seal(private, receiver, sender=dealer, receiver=receiver)
        sealed[receiver] = nonce + seal.encrypt(nonce, of_self + of_pair, None)
        digests[receiver] = share_digest(place, SELF, dealer, receiver, of_self) + share_digest(
            place, PAIR, dealer, receiver, of_pair
        )
    bundle = Bundle(
        job=place.members.job,
        number=place.number,
        silo=dealer,
        roster=place.members.roster,
        threshold=threshold,
        public=private_key(own.pair_seed).public_key().public_bytes_raw(),
        commitment=share_digest(place, SELF, dealer, "", own.self_seed),
        sealed=sealed,
        digests=digests,
    )
    return identity.sign(msgpack.packb(asdict(bundle)), context=BUNDLE)


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


def open_share(bundle: Bundle, place: Place, *, private: X25519PrivateKey, receiver: str) -> dict[str, bytes] | None:
    """Return the receiver's shares by kind, or None if the dealer sealed something else than it signed digests of."""
    sealed = bundle.sealed[receiver]
    try:
        seal = place.seal(private, bundle.silo, sender=bundle.silo, receiver=receiver)
        both = seal.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
    except (InvalidTag, ValueError, TypeError):
        return None
    shares = {SELF: both[:SECRET_BYTES], PAIR: both[SECRET_BYTES:]}
    fits = all(bundle.expects(place, kind, receiver, share) for kind, share in shares.items())
    return shares if fits else None


def join_shares(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Return the secret of which `shares`, by position, are enough."""
    return bytes(Shamir.combine(sorted(shares.items())[:threshold]))
