"""A silo's secrets of one round, and their shares: so that others can take its masks off when it cannot.

Two secrets of 128 bits: from one comes the self mask, from the other the X25519 key of the pairwise masks. Both are
Shamir-shared (Shamir 1979, over GF(2^128), pycryptodome), each other silo's share sealed for it alone. A signed bundle
carries the seals beside digests of everything, so that a wrong share is noticed and has an author.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import msgpack
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from silo_app.aggregation.bundle import BUNDLE, PAIR, SECRET_BYTES, SELF, Bundle, private_key, share_digest
from silo_app.aggregation.place import Place
from silo_app.identity import Identity

__all__ = ["Secrets", "deal", "join_shares", "open_share"]

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a silo makes for one round and shows nobody."""

    self_seed: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(SECRET_BYTES))
    pair_seed: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(SECRET_BYTES))


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
