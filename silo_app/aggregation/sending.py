"""A silo's message for a round: an update with numbers, or numbers alone; masked and encrypted, or plain."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import tallies
from silo_app.aggregation.body import Share, Steps, encrypted, quantised
from silo_app.aggregation.cipher import Cipher
from silo_app.aggregation.codec import FieldPlan
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.progress import Progress
from silo_app.aggregation.ring import DEGREE, SLOT_MODULUS
from silo_app.aggregation.terms import PLAIN_MODULUS, SAMPLES, Terms
from silo_app.aggregation.wire import body_digest, join
from silo_app.errors import UpdateRefused

__all__ = ["Envelope", "message", "part_of", "require_finite", "weight_of"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a silo's message is put into."""

    participants: tuple[str, ...]
    silos: int
    """How many silos the job has."""
    cipher: Cipher | None
    masks: Masks
    masks_digest: bytes


def weight_of(terms: Terms, progress: Progress, participants: tuple[str, ...], samples: int) -> float:
    """Return this silo's weight: the share that `samples` are of the images that the statistics counted; equal without."""
    if not progress.counted:
        return 1 / len(participants)
    if terms.silo not in progress.counted:
        raise terms.round_refused(
            progress.next_round, "the statistics do not count this silo's images", "It waits for the next statistics."
        )
    return samples / progress.total


def part_of(samples: int, done: float) -> int:
    """Return how many of `samples` images count for a silo that trained the share `done`, in (0, 1]; at least one."""
    if not 0 < done <= 1:
        raise UpdateRefused(f"a share of {done} of a round", where="done", remedy="It is above 0, and 1 at most.")
    return max(1, round(samples * done))


def require_finite(terms: Terms, round_number: int, update: NDArray[np.float32]) -> None:
    """Refuse what must not leave the silo."""
    if update.shape != (terms.layout.size,) or not np.isfinite(update).all():
        raise UpdateRefused(
            f"its update of shape {update.shape} is not {terms.layout.size} finite values",
            where=f"{terms.silo}, round {round_number}",
            remedy="This silo sits out the round. Look at its training: learning rate, damaged images.",
        )


def message(
    terms: Terms,
    progress: Progress,
    envelope: Envelope,
    *,
    content: str,
    numbers: Mapping[str, float],
    samples: int,
    update: NDArray[np.float32] | None,
    random: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return the message, uint8 (n,), and what it does not carry of `update` and the residual, float32 (P,).

    `samples` is what the silo weighs in this round; it travels among the numbers, summed and hidden like them.
    """
    residual = progress.residual
    weight = weight_of(terms, progress, envelope.participants, samples) if update is not None else 0.0
    numbers = {**numbers, SAMPLES: samples}
    if envelope.cipher is None:
        parts = [tallies.encode(numbers, PLAIN_MODULUS).astype("<u8").view(np.uint8)]
        if update is not None:
            parts.insert(0, (update * np.float32(weight)).astype("<f4").view(np.uint8))
        body = np.concatenate(parts)
    elif update is None:
        body = encrypted(iter([_first_row(numbers)]), 1, envelope.cipher, envelope.masks)
    else:
        plan = FieldPlan(terms.width(progress))
        residual = np.empty_like(update)
        rows = quantised(
            update,
            progress.residual,
            residual,
            plan=plan,
            steps=Steps(terms.layout, terms.steps(progress, envelope.silos)),
            share=Share(weight, plan.quota(weight, envelope.silos)),
            random=random,
        )
        blocks = 1 + plan.blocks(len(update))
        body = encrypted(chain([_first_row(numbers)], rows), blocks, envelope.cipher, envelope.masks)
    header = terms.header(progress, content, numbers, envelope.cipher.key_id if envelope.cipher else b"")
    header = replace(header, participants=envelope.participants, masks=envelope.masks_digest, body=body_digest(body))
    return join(header, body), residual


def _first_row(numbers: Mapping[str, float]) -> NDArray[np.uint64]:
    row = np.zeros(DEGREE, dtype=np.uint64)
    encoded = tallies.encode(numbers, SLOT_MODULUS)
    row[: len(encoded)] = encoded
    return row
