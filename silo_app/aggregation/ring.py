"""The arithmetic of sums without a key: what the server needs to add ciphertexts, and nothing that could open one.

A seeded symmetric ciphertext of SEAL (Microsoft SEAL 4, `Encryptor::encrypt_symmetric`) is a polynomial c0 and the
64-byte seed of c1. Sums of ciphertexts are sums of polynomials modulo Q, so the server adds the c0 and hands on the
seeds of all contributors: every silo expands and adds the c1 itself. A sum so weighs as much as one update, not twice
as much, and the server needs no cryptographic library.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEGREE", "MAX_SILOS", "MODULUS", "PLAIN_BITS", "SEED_BYTES", "add", "from_wire", "to_wire", "wire_bytes"]

DEGREE = 8192
MODULUS_BITS = (60, 60)
"""Of SEAL's coefficient modulus; the last prime is its key-switching prime, so ciphertexts live modulo the first."""
MODULUS = 1152921504606748673
"""The first prime of `CoeffModulus.Create(8192, [60, 60])`; `cipher` checks it against SEAL's."""
PLAIN_BITS = 50
SEED_BYTES = 64
MAX_SILOS = 128
"""Decryption is exact while the summed noise stays under Q / 2t = 512: fresh noise has a deviation of 3.2 (clipped at
21) and rounding adds at most 1/2 each, so 128 silos reach 64 + 12 deviations of 36."""
PAIR_BYTES = 15
"""Two 60-bit coefficients on the wire."""


def wire_bytes(blocks: int) -> int:
    """Return the bytes on the wire of the c0 of `blocks` ciphertexts."""
    return blocks * DEGREE // 2 * PAIR_BYTES


def to_wire(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Pack coefficients, uint64 (blocks, DEGREE) below 2^60, into uint8 (wire_bytes(blocks),)."""
    octets = words.astype("<u8", copy=False).view(np.uint8).reshape(-1, 2, 8)
    packed = np.empty((len(octets), PAIR_BYTES), dtype=np.uint8)
    packed[:, 0:7] = octets[:, 0, :7]
    packed[:, 7:14] = octets[:, 1, :7]
    packed[:, 14] = octets[:, 0, 7] | (octets[:, 1, 7] << 4)
    return packed.reshape(-1)


def from_wire(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Undo `to_wire`; any bytes give words below 2^60, which may still be above the modulus."""
    pairs = packed.reshape(-1, PAIR_BYTES)
    octets = np.empty((len(pairs), 2, 8), dtype=np.uint8)
    octets[:, 0, :7] = pairs[:, 0:7]
    octets[:, 1, :7] = pairs[:, 7:14]
    octets[:, 0, 7] = pairs[:, 14] & 0x0F
    octets[:, 1, 7] = pairs[:, 14] >> 4
    return octets.reshape(-1).view("<u8").astype(np.uint64, copy=False).reshape(-1, DEGREE)


def add(total: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
    """Add `words` to `total` in place, modulo Q; both uint64 (blocks, DEGREE) below Q."""
    for row, other in zip(total, words, strict=True):  # a row at a time stays in the processor's cache
        np.add(row, other, out=row)
        np.minimum(row, row - np.uint64(MODULUS), out=row)  # below Q the subtraction wraps to something larger
