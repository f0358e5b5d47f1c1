"""How a silo enters a training that it had no part in, when the job is resumed: a member hands it the earlier jobs' keys.

With these keys it opens the closed rounds as a silo does that was away, from the first one on, and comes to the same
weights and the same history by itself: whoever gives it other keys gives it nothing that it could use. The keys open sums
alone; what masks single updates is not among them and is not kept by anybody. The entrant signs an X25519 key for this
one purpose, the member seals for it with another (RFC 7748, RFC 5869, AES-256-GCM), and signs what it sealed.
"""

import os
from dataclasses import dataclass, field
from hashlib import sha256

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from silo_app.aggregation.keys import agreed_cipher, is_usable
from silo_app.aggregation.progress import EarlierJob
from silo_app.aggregation.wire import NAME_LIMIT, parse_map
from silo_app.errors import KeyRefused
from silo_app.identity import Identity, Trust

__all__ = ["Entry", "admitted", "require_entrant"]

ENTRY = b"siloscope/entry/1"
ADMISSION = b"siloscope/admission/1"
NONCE_BYTES = 12
MOST_JOBS = 1000
REMEDY = "Nothing was used. Submit the job again; if it repeats, tell the server's operator."


@dataclass(frozen=True)
class Entry:
    """A silo that asks to enter the resumed `job`; the key lives as long as this."""

    job: str
    identity: Identity
    _private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)

    def request(self) -> bytes:
        """Return what members are asked with, signed."""
        public = self._private.public_key().public_bytes_raw()
        content = {"job": self.job, "silo": self.identity.name, "public": public}
        return self.identity.sign(msgpack.packb(content), context=ENTRY)

    def open(self, signed: bytes) -> tuple[EarlierJob, ...]:
        """Return the earlier jobs that a member admitted this silo to, oldest first.

        Raises `SignatureInvalid`, `MessageInvalid`, or `KeyRefused` for what is of another job, for another silo, or not
        from a silo.
        """
        verified = self.identity.trust.verify(signed, context=ADMISSION)
        types = dict.fromkeys(("job", "sender", "receiver"), str) | dict.fromkeys(("public", "nonce", "sealed"), bytes)
        content = parse_map(verified.payload, types, refuse=KeyRefused, what="the admission")
        meant = content["job"], content["sender"], content["receiver"]
        if not verified.signer.is_silo or meant != (self.job, verified.name, self.identity.name):
            raise _refused(verified.name, f"it is of job {content['job'][:NAME_LIMIT]}, or not from a silo for this one")
        try:
            cipher = _cipher(self._private, content["public"], self.job, verified.name, self.identity.name)
            packed = cipher.decrypt(content["nonce"], content["sealed"], None)
            return tuple(EarlierJob.of(one) for one in msgpack.unpackb(packed, max_array_len=MOST_JOBS))
        except (InvalidTag, ValueError, TypeError, msgpack.UnpackException):
            raise _refused(verified.name, "it does not open, or holds no jobs") from None


def require_entrant(request: bytes, *, job: str, silo: str, trust: Trust) -> bytes:
    """Return the X25519 key of the silo that asks to enter `job`, 32 bytes.

    Raises `SignatureInvalid`, `MessageInvalid`, or `KeyRefused` for another silo or job, or no silo.
    """
    verified = trust.verify(request, context=ENTRY)
    types: dict[str, type] = {"job": str, "silo": str, "public": bytes}
    content = parse_map(verified.payload, types, refuse=KeyRefused, what=f"the request of {silo}")
    if not verified.signer.is_silo or (content["job"], content["silo"], verified.name) != (job, silo, silo):
        raise _refused(verified.name, f"it is of job {content['job'][:NAME_LIMIT]}, or not of the silo {silo}")
    if not is_usable(content["public"]):
        raise _refused(silo, "its X25519 key is none")
    return bytes(content["public"])


def admitted(request: bytes, *, job: str, silo: str, own: Identity, earlier: tuple[EarlierJob, ...]) -> bytes:
    """Return the keys of the jobs `earlier`, sealed for the silo that asks with `request` to enter `job`, and signed.

    Raises as `require_entrant`.
    """
    public = require_entrant(request, job=job, silo=silo, trust=own.trust)
    private, nonce = X25519PrivateKey.generate(), os.urandom(NONCE_BYTES)
    packed = msgpack.packb([one.content() for one in earlier])
    content = {
        "job": job,
        "sender": own.name,
        "receiver": silo,
        "public": private.public_key().public_bytes_raw(),
        "nonce": nonce,
        "sealed": _cipher(private, public, job, own.name, silo).encrypt(nonce, packed, None),
    }
    return own.sign(msgpack.packb(content), context=ADMISSION)


def _cipher(private: X25519PrivateKey, other: bytes, job: str, sender: str, receiver: str) -> AESGCM:
    """Return the cipher for what `sender` tells `receiver` once; both ends' keys are made for it alone."""
    info = msgpack.packb([ADMISSION, job, sender, receiver])
    return agreed_cipher(private, other, salt=sha256(info).digest(), info=info)


def _refused(silo: str, problem: str) -> KeyRefused:
    return KeyRefused(f"the admission was refused: {problem}", where=silo, remedy=REMEDY)
