"""Masks: numbers uniform modulo t from a key, streamed block by block, that vanish only from the right sum.

A mask is the keystream of AES-256 in counter mode (NIST SP 800-38A), 64 bits a slot, of which the low 50 count: t is
2^50, so slots are exactly uniform, as long as AES is.
"""

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from silo_app.aggregation.ring import DEGREE, SLOT_MODULUS
from silo_app.keystream import KEY_BYTES, keystream

__all__ = ["Masks", "derive"]

KEPT = np.uint64(SLOT_MODULUS - 1)
ZEROS = bytes(8 * DEGREE)


def derive(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return a mask's key (RFC 5869) from what only its owners know, and what it is for."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)


class Masks:
    """Several masks as one: `apply` adds those of `plus` and subtracts those of `minus`, a row of slots after another.

    Rows must come in the order of the message. Sums of any number of masks wrap around at 2^64, a multiple of t.
    """

    def __init__(self, plus: Iterable[bytes], minus: Iterable[bytes]) -> None:
        """Take the masks' keys."""
        self._plus = [keystream(key) for key in plus]
        self._minus = [keystream(key) for key in minus]
        self._drawn = np.empty(DEGREE, dtype=np.uint64)

    def apply(self, row: NDArray[np.uint64]) -> None:
        """Change the next row, uint64 (DEGREE,) below t, in place."""
        octets = self._drawn.view(np.uint8).data
        for stream in self._plus:
            stream.update_into(ZEROS, octets)
            row += self._drawn
        for stream in self._minus:
            stream.update_into(ZEROS, octets)
            row -= self._drawn
        row &= KEPT
