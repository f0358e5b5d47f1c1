"""The one parameter set of private queries, and how slots hold vectors and the query. Shared by asker and silo.

BFV (Fan and Vercauteren 2012) in Microsoft SEAL with 8,192 slots in two rows of 4,096. The silo multiplies the encrypted
query with the diagonals of its vectors (Halevi and Shoup 2014): the query repeats with period D in each row; plaintext j
holds, in the slot of vector v, its coordinate (slot + j) mod D; rotated by j, the query has the same coordinate there, so
the sum over j is v's inner product with the query. The second row's query is ahead by D/2, so a block of at most 4,096
vectors puts each vector's halves into both rows and needs D/2 diagonals only.
"""

import os
from functools import cache
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from silo_app.errors import EncoderMismatch, MessageInvalid, NotReady
from silo_app.memory_file import content_of, memory_file

__all__ = [
    "FEW_BLOCKS",
    "MAX_DIMENSION",
    "ROW",
    "SCALE",
    "SLOTS",
    "context",
    "galois_element",
    "loaded",
    "modulus",
    "padded",
    "quantised",
    "saved",
    "steps_of",
]

SLOTS = 8192
ROW = SLOTS // 2
SCALE = 10_000
"""What 1 becomes as an integer. Unit vectors so rounded have lengths below SCALE + 8, and their product stays below half
the plaintext modulus, 2^27, with room for a silo's noise: no score wraps around. More than a third above 1 is seen as
nonsense."""
MAX_DIMENSION = 256
FEW_BLOCKS = 4
"""Up to so many blocks of vectors, few rotations of the query (baby steps) are best; with more blocks, many."""
_FEW, _MANY = 16, 64
_COEFFICIENT_BITS = [50, 50, 60]
_PLAIN_BITS = 28
"""Two bits more cost two bits of the noise budget, of which 14 are left at the end, and no time."""
_HEADER = bytes.fromhex("5ea110")  # SEAL's magic number and header length, little endian
_HEADER_BYTES = 16
_ZSTANDARD = 2  # how SEAL packs what it saves; seeds and ciphertexts stay as long as they are
_ZSTANDARD_MAGIC = bytes.fromhex("28b52ffd")
_ZSTANDARD_BLOCK = 128 * 1024
_MOST_UNPACKED = 4 * 1024 * 1024


@cache
def _parameters() -> Any:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(SLOTS)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(SLOTS, _COEFFICIENT_BITS))
    parameters.set_plain_modulus(seal.PlainModulus.Batching(SLOTS, _PLAIN_BITS))
    return parameters


@cache
def context() -> Any:
    """Return SEAL's context, refused by SEAL itself below 128-bit security."""
    made = seal.SEALContext(_parameters(), True, seal.SEC_LEVEL_TYPE.TC128)
    if not made.parameters_set():
        raise NotReady(
            f"SEAL refuses the parameters: {made.parameters_error_message()}",
            remedy="Install the tenseal of constraints.txt.",
        )
    return made


@cache
def modulus() -> int:
    """Return t, the modulus of a slot."""
    return int(_parameters().plain_modulus().value())


def galois_element(step: int) -> int:
    """Return the Galois element of a rotation of both rows by `step` to the left (SEAL's generator is 3)."""
    return pow(3, step, 2 * SLOTS)


def padded(dimension: int) -> int:
    """Return the period of a query: the next power of two. Raises `EncoderMismatch` above `MAX_DIMENSION`."""
    period = 1 << max(1, (dimension - 1).bit_length())
    if period > MAX_DIMENSION:
        raise EncoderMismatch(
            f"embeddings of {dimension} numbers cannot be searched in private; {MAX_DIMENSION} can",
            remedy="Search in plain mode, or train an encoder of a smaller dimension.",
        )
    return period


def steps_of(period: int, blocks: int) -> int:
    """Return how many rotations a silo makes of the query itself; the rest are of sums, once for each block."""
    return min(_FEW if blocks <= FEW_BLOCKS else _MANY, period // 2)


def quantised(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return unit vectors (n, D) as integers, int64 (n, period)."""
    count, dimension = vectors.shape
    whole = np.zeros((count, padded(dimension)), np.int64)
    whole[:, :dimension] = np.rint(vectors.astype(np.float64) * SCALE)
    return whole


def saved(item: Any) -> bytes:
    """Return what SEAL writes for a ciphertext or keys, uncompressed random numbers and seeds."""
    with memory_file("query") as (descriptor, path):
        item.save(path)
        return content_of(descriptor)


def loaded(into: Any, content: bytes, what: str) -> Any:
    """Let SEAL read what another silo sent into `into`, if its frame cannot unpack to much more than it is.

    Raises `MessageInvalid`. What is nested in rotation keys is checked by SEAL alone: read them in a process with a
    memory limit (`workers`).
    """
    framed = (
        len(content) > _HEADER_BYTES
        and content.startswith(_HEADER)
        and content[5] == _ZSTANDARD
        and int.from_bytes(content[8:_HEADER_BYTES], "little") == len(content)
        and _unpacked_limit(content[_HEADER_BYTES:]) <= _MOST_UNPACKED
    )
    unreadable = MessageInvalid(
        f"the {what} of a private search cannot be read: damaged, or of other parameters",
        remedy="Compare the versions of siloscope at the silos.",
    )
    if not framed:
        raise unreadable
    try:
        with memory_file("query") as (descriptor, path):
            os.pwrite(descriptor, content, 0)
            into.load(context(), path)
    except (ValueError, RuntimeError):
        raise unreadable from None
    return into


def _unpacked_limit(frame: bytes) -> int:
    """Return what one Zstandard frame can unpack to at most: 128 KiB a block (RFC 8878, 3.1.1.2)."""
    if not frame.startswith(_ZSTANDARD_MAGIC) or len(frame) < 6:
        return _MOST_UNPACKED + 1
    descriptor = frame[4]
    single = descriptor >> 5 & 1
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + ((1, 0)[1 - single], 2, 4, 8)[descriptor >> 6]
    blocks, last = 0, 0
    while not last and start + 3 <= len(frame):
        header = int.from_bytes(frame[start : start + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        start += 3 + (1 if kind == 1 else size)  # kind 1 repeats one byte
        blocks += 1
    whole = last and start + 4 * (descriptor >> 2 & 1) == len(frame)
    return blocks * _ZSTANDARD_BLOCK if whole else _MOST_UNPACKED + 1
