"""Bytes that nobody can foresee without the key: the keystream of AES-256 in counter mode (NIST SP 800-38A)."""

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

__all__ = ["KEY_BYTES", "keystream"]

KEY_BYTES = 32


def keystream(key: bytes) -> CipherContext:
    """Return what turns zeros into the stream of a key, 32 bytes, used for nothing else; `ValueError` for another length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key of a keystream has {KEY_BYTES} bytes")
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
