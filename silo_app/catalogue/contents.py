"""Keyed digests of files: equal bytes have one name, and who has a file but not the silo's key cannot look for it.

A universal hash, then a pseudorandom function of its 16 bytes: GMAC (NIST SP 800-38D) under one secret key, HMAC-SHA-256
under another. Two files of up to 256 MiB that were chosen without the keys share a name with a probability of 2 ** -103
at most (GHASH is a polynomial over 2 ** 128 values, and the difference of theirs has at most 2 ** 25 roots). One nonce is
right here, and would be wrong for a message: nothing is encrypted, and no tag of GMAC is ever seen, only what HMAC makes
of it.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["ContentKey"]

_KEY_BYTES = 32
_NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class ContentKey:
    """What names the contents of files; made from the silo's key (`SiloKey.contents`)."""

    secret: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> "ContentKey":
        """Return a key for names that nobody will look up again."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def of_hex(cls, text: str) -> "ContentKey":
        """Return the key that `hex` wrote. Raises `ValueError` for anything else."""
        secret = bytes.fromhex(text)
        if len(secret) != _KEY_BYTES:
            raise ValueError("a key of contents has 32 bytes")
        return cls(secret)

    @property
    def hex(self) -> str:
        """The key as text, for the pipe to a decoder."""
        return self.secret.hex()

    def name(self, content: bytes) -> str:
        """Return the name of a file's bytes, 64 hex digits."""
        keys = HKDF(SHA256(), 2 * _KEY_BYTES, salt=None, info=b"siloscope contents").derive(self.secret)
        tag = AESGCM(keys[:_KEY_BYTES]).encrypt(_NONCE, b"", content)
        return hmac.digest(keys[_KEY_BYTES:], tag, hashlib.sha256).hex()
