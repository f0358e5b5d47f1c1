"""The body of an encrypted message, made and read block by block: memory stays near what goes in and what comes out.

The first block holds the numbers, two slots each and zeros behind; the others hold the update's fields.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import ring
from silo_app.aggregation.cipher import Cipher
from silo_app.aggregation.codec import FieldPlan, dequantise, quantise
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.ring import DEGREE, ROW_BYTES, SEED_BYTES
from silo_app.errors import UpdateRefused

__all__ = ["Share", "Steps", "encrypted", "opened", "quantised"]


class Steps:
    """The change of a weight that the integer 1 stands for: one for each tensor, float64 (T,), spread as needed."""

    def __init__(self, layout: Layout, steps: NDArray[np.float64]) -> None:
        """Take one step for each tensor of `layout`."""
        self._ends = np.cumsum(layout.sizes)
        self._steps = steps.astype(np.float32)

    def at(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the steps of the values from `start` to `stop`, float32 (stop - start,)."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        counts = np.minimum(self._ends[first : last + 1], stop)
        counts[1:] -= counts[:-1].copy()
        counts[0] -= start
        return np.repeat(self._steps[first : last + 1], counts)


@dataclass(frozen=True, slots=True)
class Share:
    """What one silo may put into the fields: its weight, and the largest integer."""

    weight: float
    quota: int


def quantised(
    update: NDArray[np.float32],
    carried: NDArray[np.float32] | None,
    left: NDArray[np.float32],
    *,
    plan: FieldPlan,
    steps: Steps,
    share: Share,
    random: np.random.Generator,
) -> Iterator[NDArray[np.uint64]]:
    """Yield rows of slots of `update` plus what was `carried` over; write what they do not hold into `left`; all (P,)."""
    values = plan.fields * DEGREE
    for start in range(0, len(update), values):
        stop = min(start + values, len(update))
        wanted = update[start:stop] if carried is None else update[start:stop] + carried[start:stop]
        spread = steps.at(start, stop)
        integers = quantise(wanted, spread, share.weight, share.quota, random)
        np.subtract(wanted, dequantise(integers, spread, share.weight), out=left[start:stop])
        yield plan.pack(integers)


def encrypted(rows: Iterator[NDArray[np.uint64]], blocks: int, cipher: Cipher, masks: Masks) -> NDArray[np.uint8]:
    """Return the body, uint8 (n,), of `blocks` rows of slots, masked and encrypted."""
    body = np.empty(blocks * (ROW_BYTES + SEED_BYTES), dtype=np.uint8)
    words_at = body[: blocks * ROW_BYTES].reshape(blocks, ROW_BYTES)
    seeds_at = body[blocks * ROW_BYTES :].reshape(blocks, SEED_BYTES)
    for block, (words, seed) in enumerate(cipher.encrypt(_masked(rows, masks))):
        words_at[block] = ring.to_wire(words)
        seeds_at[block] = seed
    return body


def _masked(rows: Iterator[NDArray[np.uint64]], masks: Masks) -> Iterator[NDArray[np.uint64]]:
    for row in rows:
        masks.apply(row)
        yield row


def opened(
    body: NDArray[np.uint8], blocks: int, cipher: Cipher, masks: Masks, *, where: str
) -> Iterator[NDArray[np.uint64]]:
    """Yield the rows of slots of a sum's body, uint8 (n,) of checked length, decrypted and without masks.

    Raises `UpdateRefused` for numbers that are not below the ciphertext modulus.
    """
    words = (_row(part, where) for part in body[: blocks * ROW_BYTES].reshape(blocks, ROW_BYTES))
    seeds = body[blocks * ROW_BYTES :].reshape(-1, blocks, SEED_BYTES)
    return _masked(cipher.decrypt(words, seeds), masks)


def _row(part: NDArray[np.uint8], where: str) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = ring.from_wire(part)[0]
    if words.max() >= ring.MODULUS:
        raise UpdateRefused(
            "the sum was refused: its numbers are not below the ciphertext modulus",
            where=where,
            remedy="Nothing was changed. If it repeats, tell the server's operator.",
        )
    return words
