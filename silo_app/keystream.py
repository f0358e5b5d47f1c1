"""Bytes that nobody can foresee without the key: the keystream of AES-256 in counter mode (NIST SP 800-38A)."""

import secrets
from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["KEY_BYTES", "Keystream", "keystream"]

KEY_BYTES = 32


def keystream(key: bytes) -> CipherContext:
    """Return what turns zeros into the stream of a key, 32 bytes, used for nothing else; `ValueError` for another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of a keystream has {KEY_BYTES} bytes")
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


class Keystream:
    """What numbers of one kind or another are drawn from."""

    def __init__(self, key: bytes) -> None:
        """Take the key, 32 bytes, which is used for nothing else. Raises `ValueError` for another length."""
        self._stream = keystream(key)

    @classmethod
    def secret(cls) -> Self:
        """Return a stream that nobody can foresee or repeat."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def octets(self, count: int) -> bytes:
        """Return the stream's next bytes."""
        return self._stream.update(bytes(count))
