"""Keys born with the job: silos announce themselves under their certificates, and the first one hands out the BFV key.

Every silo makes an X25519 key for the job and signs it with its certificate's key, so the server that relays these
messages cannot put itself between two silos. The first silo in name order makes the BFV key and encrypts it for each
other silo under their pairwise secret (RFC 7748, RFC 5869, AES-256-GCM). Nothing of this lies in a startup kit.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Self

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from silo_app.aggregation.masking import derive
from silo_app.aggregation.wire import NAME_LIMIT, parse_map
from silo_app.errors import KeyRefused, SignatureInvalid
from silo_app.identity import Identity, Trust

__all__ = [
    "Announcement",
    "Roster",
    "WrappedKey",
    "agreed_cipher",
    "announce",
    "is_usable",
    "read_announcement",
    "unwrap",
    "wrap",
]

ANNOUNCEMENT = b"siloscope/announcement/2"
KEY_WRAP = b"siloscope/key-wrap/1"
NONCE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a silo signs when it joins a job."""

    job: str
    silo: str
    public: bytes
    """X25519 public key, 32 bytes."""
    layout: bytes
    initial: bytes
    """Digest of the weights from which this silo starts."""
    settings: bytes
    """Digest of the job's aggregation settings."""
    first_job: str
    """The job in which the rounds began: this one, or the first of those that it resumes."""
    next_round: int
    """The round that this silo answers next: 0, or in a resumed job what it had reached."""
    basis: bytes
    """Digest of the rounds before `next_round`."""


@dataclass(frozen=True, slots=True)
class Roster:
    """All silos of a job, believed; one digest stands for exactly these announcements."""

    announcements: Mapping[str, Announcement]
    digest: bytes

    @classmethod
    def of(cls, announcements: Mapping[str, Announcement], signed: Mapping[str, bytes]) -> Self:
        """Return the roster of verified announcements, digested over what was signed."""
        parts = [[name, sha256(signed[name]).digest()] for name in sorted(signed)]
        ordered = {name: announcements[name] for name in sorted(announcements)}
        return cls(ordered, sha256(msgpack.packb(parts)).digest())

    @property
    def first(self) -> str:
        """The silo that makes the key."""
        return min(self.announcements)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A BFV key on its way from `sender` to `receiver`."""

    job: str
    sender: str
    receiver: str
    roster: bytes
    key: bytes
    """The key's id."""
    nonce: bytes
    sealed: bytes

    def binding(self) -> bytes:
        """Return what the seal binds beside the key."""
        return bytes(msgpack.packb([self.job, self.sender, self.receiver, self.roster, self.key]))


def announce(announcement: Announcement, identity: Identity) -> bytes:
    """Return `announcement`, signed."""
    return identity.sign(msgpack.packb(asdict(announcement)), context=ANNOUNCEMENT)


def read_announcement(name: str, signed: bytes, trust: Trust) -> Announcement:
    """Verify an announcement that came as that of the silo `name`.

    Raises `MessageInvalid`, `SignatureInvalid`, or `KeyRefused` when the signer is not that silo.
    """
    verified = trust.verify(signed, context=ANNOUNCEMENT)
    if not verified.signer.is_silo:
        raise KeyRefused(
            f"the certificate of {verified.name} is of a {verified.signer.role}, not of a silo",
            where=name,
            remedy="Nothing was used. Only silos share the key; ask the operator why this participant is in the job.",
        )
    types: dict[str, type] = {"job": str, "silo": str, "first_job": str, "next_round": int}
    types |= dict.fromkeys(("public", "layout", "initial", "settings", "basis"), bytes)
    what = f"the announcement of {name}"
    announcement = Announcement(**parse_map(verified.payload, types, refuse=KeyRefused, what=what))
    if not verified.name == announcement.silo == name:
        raise SignatureInvalid(
            f"it is signed by {verified.name} and speaks of {announcement.silo[:NAME_LIMIT]}",
            where=name,
            remedy="Nothing was used. The server relayed it under a wrong name; tell its operator.",
        )
    return announcement


def is_usable(public: bytes) -> bool:
    """Return whether `public` is an X25519 key of full order; with another, the shared secret would be known to all."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def wrap(secret: bytes, key: bytes, *, roster: Roster, receiver: str, private: X25519PrivateKey, own: Identity) -> bytes:
    """Return the key `secret`, of id `key`, sealed for `receiver` and signed."""
    job = roster.announcements[own.name].job
    head = WrappedKey(
        job=job,
        sender=own.name,
        receiver=receiver,
        roster=roster.digest,
        key=key,
        nonce=os.urandom(NONCE_BYTES),
        sealed=b"",
    )
    sealed = _pairwise(private, roster, head, receiver).encrypt(head.nonce, secret, head.binding())
    return own.sign(msgpack.packb({**asdict(head), "sealed": sealed}), context=KEY_WRAP)


def unwrap(signed: bytes, roster: Roster, private: X25519PrivateKey, own: Identity) -> tuple[bytes, bytes]:
    """Return secret and id of the key in `signed`.

    Raises `SignatureInvalid`, or `KeyRefused` for a key of another job, roster, sender or receiver.
    """
    verified = own.trust.verify(signed, context=KEY_WRAP)
    types = dict.fromkeys(("job", "sender", "receiver"), str) | dict.fromkeys(("roster", "key", "nonce", "sealed"), bytes)
    wrapped = WrappedKey(**parse_map(verified.payload, types, refuse=KeyRefused, what="the wrapped key"))
    _require_meant(wrapped, verified.name, roster, own.name)
    try:
        pairwise = _pairwise(private, roster, wrapped, wrapped.sender)
        return pairwise.decrypt(wrapped.nonce, wrapped.sealed, wrapped.binding()), wrapped.key
    except (InvalidTag, ValueError):
        raise KeyRefused(
            "the key does not open under the secret of this silo and the sender",
            where=wrapped.sender,
            remedy="Nothing was used. Submit the job again; if it repeats, tell the server's operator.",
        ) from None


def _require_meant(wrapped: WrappedKey, signer: str, roster: Roster, own: str) -> None:
    """Refuse a key that is not for this silo, in this job, with this roster, from the silo that makes it."""
    problem = ""
    if wrapped.job != roster.announcements[own].job:
        problem = f"it is of job {wrapped.job[:NAME_LIMIT]!r}"
    elif not signer == wrapped.sender == roster.first:
        problem = f"it is signed by {signer} for {wrapped.sender[:NAME_LIMIT]}; {roster.first} makes the key"
    elif wrapped.receiver != own:
        problem = f"it is for {wrapped.receiver[:NAME_LIMIT]}"
    elif wrapped.roster != roster.digest:
        problem = "its sender was shown another list of silos than this silo"
    if problem:
        raise KeyRefused(
            f"the key was refused: {problem}",
            where=signer,
            remedy="Nothing was used. Submit the job again; if it repeats, tell the server's operator.",
        )


def _pairwise(private: X25519PrivateKey, roster: Roster, wrapped: WrappedKey, other: str) -> AESGCM:
    """Return the cipher of this silo and `other` for one direction of one job."""
    info = msgpack.packb([KEY_WRAP, wrapped.job, wrapped.sender, wrapped.receiver])
    return agreed_cipher(private, roster.announcements[other].public, salt=roster.digest, info=info)


def agreed_cipher(private: X25519PrivateKey, other: bytes, *, salt: bytes, info: bytes) -> AESGCM:
    """Return the cipher that the owners of two X25519 keys have for the purpose `info`; `other` is the public one."""
    shared = private.exchange(X25519PublicKey.from_public_bytes(other))
    return AESGCM(derive(shared, salt=salt, info=info))
