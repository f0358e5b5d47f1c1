"""The asking side of a private query: a key for a session, one ciphertext a query, and the scores that come back."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from silo_app.cases import Embedding
from silo_app.errors import MessageInvalid
from silo_app.search.private.scheme import (
    FEW_BLOCKS,
    ROW,
    SCALE,
    SLOTS,
    context,
    galois_element,
    loaded,
    modulus,
    padded,
    quantised,
    saved,
    steps_of,
)

__all__ = ["Asking", "PrivateQuery"]


_MOST = 1.02
"""What rounding, and a silo's noise, may make of a similarity of 1."""


@dataclass(frozen=True, slots=True)
class PrivateQuery:
    """What an asker sends."""

    ciphertext: bytes
    """One seeded BFV ciphertext: the query in all slots."""
    dimension: int


@dataclass(frozen=True, slots=True)
class Asking:
    """One session's secret key; it never leaves the process and is in no `repr`."""

    dimension: int
    _key: Any = field(repr=False)
    keys: bytes = field(repr=False)
    """The rotation keys for the silos (seeded Galois keys for step 1 and both giant steps); the same for all queries."""

    @classmethod
    def begin(cls, dimension: int) -> "Asking":
        """Make the keys of a session for embeddings of `dimension`. Raises `EncoderMismatch` for too large ones."""
        period = padded(dimension)
        steps = {1, steps_of(period, 1), steps_of(period, FEW_BLOCKS + 1)}
        generator = seal.KeyGenerator(context())
        return cls(
            dimension, generator.secret_key(), saved(generator.create_galois_keys(sorted(map(galois_element, steps))))
        )

    def ask(self, vector: Embedding) -> PrivateQuery:
        """Encrypt a unit vector, float32 (D,)."""
        period = padded(self.dimension)
        integers = quantised(vector[None])[0]  # (period,)
        rows = np.stack([np.resize(integers, ROW), np.resize(np.roll(integers, -period // 2), ROW)])
        plain = seal.Plaintext()
        seal.BatchEncoder(context()).encode((rows.reshape(-1) % modulus()).astype(np.uint64).tolist(), plain)
        ciphertext = seal.Encryptor(context(), self._key).encrypt_symmetric(plain)
        return PrivateQuery(saved(ciphertext), self.dimension)

    def open(self, blocks: list[bytes], views: int) -> NDArray[np.float64]:
        """Return the similarity of each of a silo's views, float64 (views,), in the silo's own secret order.

        Raises `MessageInvalid` for an answer that no
        honest silo gives: another number of blocks, noise instead of scores, scores beyond what unit vectors have.
        """
        if len(blocks) != math.ceil(views / SLOTS):
            raise _nonsense(f"{len(blocks)} blocks for {views} views")
        decryptor, encoder = seal.Decryptor(context(), self._key), seal.BatchEncoder(context())
        scores = np.empty(len(blocks) * SLOTS, np.int64)
        for number, block in enumerate(blocks):
            ciphertext, plain = loaded(seal.Ciphertext(), block, "answer"), seal.Plaintext()
            if decryptor.invariant_noise_budget(ciphertext) < 1:
                raise _nonsense("it decrypts to noise")
            decryptor.decrypt(ciphertext, plain)
            signed = _signed(np.array(encoder.decode_uint64(plain), np.int64))
            halves = number == len(blocks) - 1 and views - number * SLOTS <= ROW
            scores[number * SLOTS : (number + 1) * SLOTS] = _joined(signed) if halves else signed
        similarity = scores[:views] / SCALE**2
        if views and float(np.abs(similarity).max()) > _MOST:
            raise _nonsense("scores beyond those of unit vectors")
        return np.asarray(np.clip(similarity, -1.0, 1.0), np.float64)


def _signed(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(values > modulus() // 2, values - modulus(), values)


def _joined(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Add the two rows' halves of each vector: (SLOTS,), of which the first ROW count."""
    whole = np.zeros(SLOTS, np.int64)
    whole[:ROW] = _signed((values[:ROW] + values[ROW:]) % modulus())
    return whole


def _nonsense(problem: str) -> MessageInvalid:
    return MessageInvalid(
        f"a silo's private answer was refused: {problem}",
        remedy="Nothing of it was used. Tell whoever runs that silo if it repeats.",
    )
