"""Keys born with a job: signed X25519 announcements, and the job's key wrapped for each silo under the pairwise secret.

Each silo signs its public key with its provisioned certificate, so the server, which relays everything, cannot put itself
in the middle. The pairwise key is HKDF-SHA256 (RFC 5869) of the X25519 secret (RFC 7748); wrapping is AES-256-GCM.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from silo_app.errors import KeyRefused
from silo_app.identity import Identity, Trust

__all__ = ["Announcement", "Roster", "announce", "unwrap", "verified", "wrap"]

_CONTEXT = b"siloscope/announce/1\0"
_WRAP = b"siloscope/wrap/1"
_NONCE_BYTES = 12
MAX_SILOS = 1000


@dataclass(frozen=True)
class Announcement:
    """What one silo says about itself at a job's start."""

    job: str
    silo: str
    public_key: bytes
    layout: str
    """Digest of the network's layout."""
    start: str
    """Digest of the weights that everybody starts from."""
    encryption: str
    samples: int
    """How many images it trains on: its weight in the sum; the server sees it."""


@dataclass(frozen=True)
class Roster:
    """Everybody's verified announcement, by silo."""

    silos: Mapping[str, Announcement]
    digest: bytes

    def share(self, silo: str, among: Mapping[str, Any] | list[str] | tuple[str, ...]) -> float:
        """Return a silo's weight: its images over those of all in `among`."""
        return self.silos[silo].samples / sum(self.silos[name].samples for name in among)


def announce(identity: Identity, announcement: Announcement) -> bytes:
    """Return the signed announcement."""
    return identity.sign(_CONTEXT, msgpack.packb(asdict(announcement)))


def verified(trust: Trust, own: Announcement, announcements: Mapping[str, bytes], min_silos: int) -> Roster:
    """Check everybody's announcement against our own and return the roster.

    Raises `SignatureInvalid` or `KeyRefused` naming the silo whose announcement is not what it must be.
    """
    if not min_silos <= len(announcements) <= MAX_SILOS:
        raise _refused(f"{len(announcements)} silos announced a key; this silo wants at least {min_silos}")
    silos = {name: _read(trust, own, name, envelope) for name, envelope in sorted(announcements.items())}
    if silos.get(own.silo) != own:
        raise _refused("our own announcement is not in the roster as we sent it")
    if len({one.public_key for one in silos.values()}) != len(silos):
        raise _refused("two silos announced the same key")
    digest = hashlib.sha256(msgpack.packb([asdict(one) for one in silos.values()])).digest()
    return Roster(silos, digest)


def _read(trust: Trust, own: Announcement, name: str, envelope: bytes) -> Announcement:
    signed = trust.verify(_CONTEXT, envelope)
    try:
        one = Announcement(**msgpack.unpackb(signed.payload))
    except Exception:  # noqa: BLE001  (a member's bytes, but still foreign ones)
        raise _refused(f"the announcement of {name} cannot be read") from None
    if signed.name != name or one.silo != name:
        raise _refused(f"the announcement of {name} was signed by {signed.name}")
    for field, what in (
        ("job", "job"),
        ("layout", "network"),
        ("start", "start weights"),
        ("encryption", "encryption"),
    ):
        if getattr(one, field) != getattr(own, field):
            raise _refused(f"{name} has another {what} than this silo")
    if not isinstance(one.samples, int) or one.samples < 1 or len(one.public_key) != 32:
        raise _refused(f"the announcement of {name} has values out of range")
    return one


def wrap(private: X25519PrivateKey, roster: Roster, sender: str, receiver: str, secret: bytes) -> bytes:
    """Return `secret` readable by `receiver` only, bound to job, sender, receiver and roster."""
    key, bound = _pairwise(private, roster, sender, receiver, peer=receiver)
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound)


def unwrap(private: X25519PrivateKey, roster: Roster, sender: str, receiver: str, wrapped: bytes) -> bytes:
    """Undo `wrap`. Raises `KeyRefused` if it is not from `sender`, for us, in this job, with this roster."""
    key, bound = _pairwise(private, roster, sender, receiver, peer=sender)
    try:
        return AESGCM(key).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise _refused(f"the key that came for this silo is not from {sender} for this job") from None


def _pairwise(private: X25519PrivateKey, roster: Roster, sender: str, receiver: str, *, peer: str) -> tuple[bytes, bytes]:
    public = X25519PublicKey.from_public_bytes(roster.silos[peer].public_key)
    bound = msgpack.packb([_WRAP, roster.silos[peer].job, sender, receiver, roster.digest])
    derive = HKDF(algorithm=hashes.SHA256(), length=32, salt=roster.digest, info=bound)
    return derive.derive(private.exchange(public)), bound


def _refused(problem: str) -> KeyRefused:
    return KeyRefused(problem, remedy="The job cannot go on safely; its operator must look at the named silo.")
