"""The silo's side of a private query: vectors prepared once a generation, then scored against what it cannot read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal
from numpy.typing import NDArray

from silo_app.errors import MessageInvalid
from silo_app.privacy.uniform import UniformNumbers
from silo_app.search.private.order import order_of
from silo_app.search.private.scheme import (
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

__all__ = ["PreparedBlock", "PreparedGallery", "Rotations", "prepare", "score"]


@dataclass(frozen=True, slots=True)
class PreparedBlock:
    """Up to `SLOTS` vectors as plaintexts in NTT form: giant steps, each of baby steps, each for one diagonal."""

    diagonals: tuple[tuple[Any, ...], ...]
    count: int
    halves: bool
    """Whether each vector's halves lie in both rows, so that its score is the sum of two slots."""


@dataclass(frozen=True, slots=True)
class PreparedGallery:
    """A generation's vectors, or the share of one process, ready to be scored. About 4 kB a vector."""

    blocks: tuple[PreparedBlock, ...]
    dimension: int
    steps: int
    """Rotations of the query itself; the same in all processes of a silo."""


@dataclass(frozen=True, slots=True)
class Rotations:
    """An asker's rotation keys, read once a session."""

    keys: Any

    @classmethod
    def of(cls, content: bytes) -> "Rotations":
        """Read them. Raises `MessageInvalid` for damaged keys, or keys of other steps."""
        keys = loaded(seal.GaloisKeys(), content, "rotation keys")
        if not keys.has_key(galois_element(1)):
            raise MessageInvalid(
                "a private query's rotation keys are of other steps",
                remedy="Compare the versions of siloscope at the silos.",
            )
        return cls(keys)


def prepare(vectors: NDArray[np.float32], seed: int, *, share: int = 0, shares: int = 1) -> PreparedGallery:
    """Prepare unit vectors (n, D) in the order that `seed` (128 bits) gives.

    Of `shares` processes, each takes every n-th block. Takes 0.2 s of one core for each 8,192 vectors of 256 numbers.
    """
    count, dimension = vectors.shape
    steps = steps_of(padded(dimension), math.ceil(count / SLOTS / shares))
    order = order_of(count, seed)
    starts = range(share * SLOTS, count, shares * SLOTS)
    blocks = tuple(_prepared(quantised(vectors[order[start : start + SLOTS]]), steps) for start in starts)
    return PreparedGallery(blocks, dimension, steps)


def score(query: bytes, rotations: Rotations, gallery: PreparedGallery, *, noise: float = 0.0) -> list[bytes]:
    """Return the encrypted scores of all vectors, one ciphertext for each block of `SLOTS`.

    `noise` is the largest change of each similarity at random, against askers who solve for the vectors. Raises
    `MessageInvalid` for a query that cannot be computed with.
    """
    random = UniformNumbers.secret()
    totals = zip(_totals(query, rotations, gallery), gallery.blocks, strict=True)
    try:
        return [_finished(total, _added(block, round(noise * SCALE**2), random)) for total, block in totals]
    except (ValueError, RuntimeError):  # SEAL's, of a query in another form, or without the keys that it needs
        raise MessageInvalid(
            "a private query cannot be computed with", remedy="Compare the versions of siloscope at the silos."
        ) from None


def _totals(query: bytes, rotations: Rotations, gallery: PreparedGallery) -> Iterator[Any]:
    evaluator = seal.Evaluator(context())
    ciphertext = loaded(seal.Ciphertext(), query, "query")
    babies = _rotated(evaluator, ciphertext, rotations, gallery.steps)
    element = galois_element(gallery.steps)
    for block in gallery.blocks:
        total: Any = None
        for diagonals in reversed(block.diagonals):  # Horner's rule: each earlier sum is rotated once more
            inner = _inner(evaluator, babies, diagonals)
            if total is None:
                total = inner
            else:
                evaluator.apply_galois_inplace(total, element, rotations.keys)
                evaluator.add_inplace(total, inner)
        yield total


def _rotated(evaluator: Any, query: Any, rotations: Rotations, steps: int) -> list[Any]:
    """Return the query rotated by 0 to steps - 1, in NTT form."""
    babies, turned = [], query
    for step in range(steps):
        if step:
            following = seal.Ciphertext()
            evaluator.apply_galois(turned, galois_element(1), rotations.keys, following)
            turned = following
        transformed = seal.Ciphertext()
        evaluator.transform_to_ntt(turned, transformed)
        babies.append(transformed)
    return babies


def _inner(evaluator: Any, babies: list[Any], diagonals: tuple[Any, ...]) -> Any:
    """Return the sum of the rotated queries times their diagonals, out of NTT form."""
    total, product = seal.Ciphertext(), seal.Ciphertext()
    evaluator.multiply_plain(babies[0], diagonals[0], total)
    for baby, diagonal in zip(babies[1:], diagonals[1:], strict=True):
        evaluator.multiply_plain(baby, diagonal, product)
        evaluator.add_inplace(total, product)
    evaluator.transform_from_ntt_inplace(total)
    return total


def _finished(total: Any, added: NDArray[np.int64]) -> bytes:
    """Add to each slot, int64 (2, ROW), and shrink a block of scores to one prime: half the bytes."""
    evaluator, plain = seal.Evaluator(context()), seal.Plaintext()
    seal.BatchEncoder(context()).encode((added.reshape(-1) % modulus()).astype(np.uint64), plain)
    evaluator.add_plain_inplace(total, plain)
    evaluator.mod_switch_to_next_inplace(total)
    return saved(total)


def _added(block: PreparedBlock, limit: int, random: UniformNumbers) -> NDArray[np.int64]:
    """Return what is added, int64 (2, ROW): noise up to `limit`, and for halves a mask that their sum cancels.

    Empty slots become numbers drawn for each alone: what they hold is sums of the query, which its asker knows, and so it
    would see what was added.
    """
    added = random.below(2 * limit + 1, ROW if block.halves else SLOTS) - limit
    if block.halves:
        mask = random.below(modulus(), ROW)
        added = np.stack([added + mask, -mask])
        empty = added[:, block.count :]
    else:
        empty = added[block.count :]
    empty[:] = random.below(modulus(), empty.size).reshape(empty.shape)
    return added.reshape(2, ROW)


def _prepared(integers: NDArray[np.int64], babies: int) -> PreparedBlock:
    """Return the diagonals of up to `SLOTS` vectors (n, period)."""
    count, period = integers.shape
    halves = count <= ROW
    placed = np.ones((2, ROW, period), np.int64)  # SEAL refuses a product with nothing; `_added` hides empty slots
    placed[0, : min(count, ROW)] = integers[:ROW]
    placed[1, : count if halves else count - ROW] = integers if halves else integers[ROW:]
    giants = math.ceil((period // 2 if halves else period) / babies)
    return PreparedBlock(
        tuple(tuple(_plaintext(placed, giant * babies, baby) for baby in range(babies)) for giant in range(giants)),
        count,
        halves,
    )


def _plaintext(placed: NDArray[np.int64], giant: int, baby: int) -> Any:
    """Return one diagonal, turned back by the giant step that the sum over its group is turned by later."""
    period = placed.shape[2]
    slots = np.arange(ROW)
    wanted = slots + giant + baby  # the coordinate that the rotated query has in each slot, modulo the period
    rows = np.stack([placed[0, slots, wanted % period], placed[1, slots, (wanted + period // 2) % period]])  # (2, ROW)
    turned = np.roll(rows, giant, axis=1)
    plain = seal.Plaintext()
    seal.BatchEncoder(context()).encode((turned.reshape(-1) % modulus()).astype(np.uint64).tolist(), plain)
    seal.Evaluator(context()).transform_to_ntt_inplace(plain, context().first_parms_id())
    return plain
