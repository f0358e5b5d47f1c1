"""Masks: numbers uniform modulo t from a key, streamed block by block, that vanish only from the right sum.

A mask is the keystream of AES-256 in counter mode (NIST SP 800-38A), 64 bits a slot of which the low 50 are kept. t lies
just below 2^50, so a value is not below it once in 7 * 10^10 draws; it is then drawn again from the far end of the same
counter. Slots are thus exactly uniform, as long as AES is.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from silo_app.aggregation.ring import DEGREE, PLAIN_BITS

__all__ = ["Masks", "derive"]

KEY_BYTES = 32
KEPT = np.uint64((1 << PLAIN_BITS) - 1)
ZEROS = bytes(8 * DEGREE)
FAR = b"\x80" + bytes(15)
"""Where redrawn values come from; no model is so large that the first draws reach it."""


def derive(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return a mask's key (RFC 5869) from what only its owners know, and what it is for."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)


class _Stream:
    """One mask."""

    def __init__(self, key: bytes, modulus: int) -> None:
        self._key = key
        self._modulus = np.uint64(modulus)
        self._near = self._counter(bytes(16))
        self._far: CipherContext | None = None

    def fill(self, row: NDArray[np.uint64]) -> None:
        """Write the next numbers, uint64 (DEGREE,) below t, over `row`."""
        self._near.update_into(ZEROS, row.view(np.uint8).data)
        row &= KEPT
        if row.max() >= self._modulus:
            for slot in np.flatnonzero(row >= self._modulus):
                row[slot] = self._redraw()

    def _redraw(self) -> np.uint64:
        self._far = self._far or self._counter(FAR)
        while True:
            drawn = np.uint64(int.from_bytes(self._far.update(bytes(8)), "little")) & KEPT
            if drawn < self._modulus:
                return drawn

    def _counter(self, start: bytes) -> CipherContext:
        return Cipher(algorithms.AES(self._key), modes.CTR(start)).encryptor()


class Masks:
    """Several masks as one: `apply` adds those of `plus` and subtracts those of `minus`, a row of slots after another.

    Rows must come in the order of the message. 128 silos that survive beside 64 x 64 pairs are 4,224 masks of 50 bits: their
    sum stays below 2^63, so it is reduced once a row.
    """

    def __init__(self, plus: Iterable[bytes], minus: Iterable[bytes], modulus: int) -> None:
        """Take the masks' keys, and t."""
        self._modulus = np.uint64(modulus)
        self._plus = [_Stream(key, modulus) for key in plus]
        self._minus = [_Stream(key, modulus) for key in minus]
        self._drawn = np.empty(DEGREE, dtype=np.uint64)

    def apply(self, row: NDArray[np.uint64]) -> None:
        """Change the next row, uint64 (DEGREE,) below t, in place."""
        for stream in self._plus:
            stream.fill(self._drawn)
            row += self._drawn
        for stream in self._minus:
            stream.fill(self._drawn)
            np.subtract(self._modulus, self._drawn, out=self._drawn)
            row += self._drawn
        if self._plus or self._minus:
            row %= self._modulus
