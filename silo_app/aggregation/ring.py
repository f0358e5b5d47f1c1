"""The arithmetic of sums without a key: what the server needs to add ciphertexts, and nothing that could open one.

A seeded symmetric ciphertext of SEAL (Microsoft SEAL 4, `Encryptor::encrypt_symmetric`) is a polynomial c0 and the
64-byte seed of c1. Sums of ciphertexts are sums of polynomials modulo Q, so the server adds the c0 and hands on the
seeds of all contributors: every silo expands and adds the c1 itself. A sum so weighs as much as one update, not twice
as much, and the server needs no cryptographic library.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DEGREE",
    "MAX_SILOS",
    "MODULUS",
    "PLAIN_BITS",
    "ROW_BYTES",
    "SEED_BYTES",
    "SLOT_MODULUS",
    "add",
    "from_wire",
    "to_wire",
    "wire_bytes",
]

DEGREE = 8192
MODULUS_BITS = (60, 60)
"""Of SEAL's coefficient modulus; the last prime is its key-switching prime, so ciphertexts live modulo the first."""
MODULUS = 1152921504606748673
"""The first prime of `CoeffModulus.Create(8192, [60, 60])`; `cipher` checks it against SEAL's."""
PLAIN_BITS = 50
SLOT_MODULUS = 1 << PLAIN_BITS
"""t. A slot is a coefficient of the plaintext polynomial: sums need no batching, and a power of two needs no division."""
SEED_BYTES = 64
MAX_SILOS = 128
"""Decryption is exact while the summed noise stays under Q / 2t = 512: fresh noise has a deviation of 3.2 (clipped at
21) and rounding adds at most 1/2 each, so 128 silos reach 64 + 12 deviations of 36."""
ROW_BYTES = DEGREE * 60 // 8
"""The coefficients of one ciphertext on the wire, 60 bits each: the low 32 bits of all, the next 16, 8 and 4."""
_PARTS = (4 * DEGREE, 6 * DEGREE, 7 * DEGREE)
"""Where the 16, the 8 and the 4 bits begin."""


def wire_bytes(blocks: int) -> int:
    """Return the bytes on the wire of the c0 of `blocks` ciphertexts."""
    return blocks * ROW_BYTES


def to_wire(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Pack coefficients, uint64 (blocks, DEGREE) or of one (DEGREE,), below 2^60, into uint8 (wire_bytes(blocks),)."""
    rows = np.ascontiguousarray(words.reshape(-1, DEGREE), dtype="<u8")
    packed = np.empty((len(rows), ROW_BYTES), dtype=np.uint8)
    low, middle, high, last = np.split(packed, _PARTS, axis=1)
    halves, quarters, octets = _views(rows)
    low.view("<u4")[...] = halves[:, :, 0]
    middle.view("<u2")[...] = quarters[:, :, 2]
    high[...] = octets[:, :, 6]
    np.left_shift(octets[:, 1::2, 7], 4, out=last)
    last |= octets[:, ::2, 7]
    return packed.reshape(-1)


def from_wire(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Undo `to_wire`; any bytes give words below 2^60, which may still be above the modulus."""
    rows = packed.reshape(-1, ROW_BYTES)
    words = np.empty((len(rows), DEGREE), dtype="<u8")
    halves, quarters, octets = _views(words)
    low, middle, high, last = np.split(rows, _PARTS, axis=1)
    halves[:, :, 0] = low.view("<u4")
    quarters[:, :, 2] = middle.view("<u2")
    octets[:, :, 6] = high
    np.bitwise_and(last, 0x0F, out=octets[:, ::2, 7])
    np.right_shift(last, 4, out=octets[:, 1::2, 7])
    return words.astype(np.uint64, copy=False)


def _views(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint8]]:
    """Return the same memory, little endian (blocks, DEGREE), in pieces of 4, 2 and 1 bytes."""
    shape = (*words.shape, -1)
    return words.view("<u4").reshape(shape), words.view("<u2").reshape(shape), words.view(np.uint8).reshape(shape)


def add(total: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
    """Add `words` to `total` in place, modulo Q; both uint64 (blocks, DEGREE) below Q."""
    for row, other in zip(total, words, strict=True):  # a row at a time stays in the processor's cache
        np.add(row, other, out=row)
        np.minimum(row, row - np.uint64(MODULUS), out=row)  # below Q the subtraction wraps to something larger
