"""A round's sum at a silo: is it the one that this silo waits for, and what does it say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import opening, tallies
from silo_app.aggregation.body import Steps, opened
from silo_app.aggregation.cipher import Cipher
from silo_app.aggregation.codec import FieldPlan
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.opening import Opened
from silo_app.aggregation.progress import Progress
from silo_app.aggregation.ring import ROW_BYTES, SEED_BYTES
from silo_app.aggregation.sums import blocks_of
from silo_app.aggregation.terms import PLAIN_MODULUS, SAMPLES, UNUSED, Terms
from silo_app.aggregation.wire import KINDS, Header
from silo_app.errors import KeyRefused

__all__ = ["arrived", "read_encrypted", "read_plain", "require_ours"]


def require_ours(
    terms: Terms, progress: Progress, header: Header, contributors: Sequence[str], *, key: bytes, silos: tuple[str, ...]
) -> None:
    """Refuse a sum of anything but the round where `progress` stands, of this job and layout, under the key id `key`.

    `silos` are those of the job. Raises `KeyRefused`, `RoundRefused` or `UpdateRefused`.
    """
    number = progress.next_round
    if header.kind != "sum" or header.encryption != terms.settings.encryption:
        raise terms.sum_refused(number, f"it is {KINDS[header.kind]} with encryption {header.encryption}")
    if header.key != key:
        raise KeyRefused("the sum is under another key", where=terms.where(number), remedy=UNUSED)
    if (header.job, header.round_number) != (terms.job, number):
        raise terms.round_refused(number, f"its sum says round {header.round_number} of job {header.job}")
    sent = progress.sent if progress.sent and progress.sent.job == terms.job else None
    participants = sent.participants if sent else header.participants
    expected = replace(
        terms.header(progress, header.content, header.numbers, key), participants=participants, masks=header.masks
    )
    if header.agreement != expected.agreement or SAMPLES not in header.numbers:
        raise terms.sum_refused(number, "layout, width, participants or earlier sums differ from this silo's")
    if tuple(sorted(contributors)) != header.silos:
        raise terms.sum_refused(number, "it is of other silos than the server names")
    if not set(header.participants) <= set(silos):
        raise terms.sum_refused(number, "it is of silos that are not in the job")
    if len(header.silos) < terms.min_silos:
        raise terms.round_refused(
            number, f"{len(header.silos)} silos in its sum; this silo needs {terms.min_silos} (training.min_silos)"
        )


def read_encrypted(
    terms: Terms,
    progress: Progress,
    header: Header,
    body: NDArray[np.uint8],
    cipher: Cipher,
    masks: Masks,
    steps: NDArray[np.float64],
) -> Opened:
    """Return what an encrypted sum says. Raises `UpdateRefused` for noise, and for what does not fit its header."""
    blocks = blocks_of(header)
    if len(body) != blocks * (ROW_BYTES + len(header.silos) * SEED_BYTES):
        problem = f"{len(body)} bytes for {len(header.silos)} silos' {header.size} values"
        raise terms.sum_refused(header.round_number, problem)
    where = terms.where(header.round_number)
    rows = opened(body, blocks, cipher, masks, where=where)
    numbers = opening.read_numbers(next(rows), header.numbers, where)
    if header.content != "update":
        return Opened(None, numbers, header.silos)
    update = opening.read_update(
        rows,
        header.size,
        plan=FieldPlan(header.bits),
        steps=Steps(terms.layout, steps),
        share=arrived(terms, progress, header, numbers),
        where=where,
    )
    return Opened(update, numbers, header.silos)


def read_plain(terms: Terms, progress: Progress, header: Header, body: NDArray[np.uint8]) -> Opened:
    """Return what a plain sum says. Raises `UpdateRefused` for what does not fit its header."""
    if len(body) != 4 * header.size + 8 * tallies.slots(len(header.numbers)):
        raise terms.sum_refused(header.round_number, f"{len(body)} bytes for {header.size} plain values")
    summed = np.frombuffer(body[4 * header.size :].tobytes(), dtype="<u8").astype(np.uint64)
    numbers = tallies.decode(header.numbers, summed, PLAIN_MODULUS)
    if header.content != "update":
        return Opened(None, numbers, header.silos)
    values = np.frombuffer(body[: 4 * header.size].tobytes(), dtype="<f4").astype(np.float32)
    return Opened(values / np.float32(arrived(terms, progress, header, numbers)), numbers, header.silos)


def arrived(terms: Terms, progress: Progress, header: Header, numbers: Mapping[str, float]) -> float:
    """Return the weight that is in a sum, of 1 for all that were counted (or take part, without statistics)."""
    if not progress.counted:
        return len(header.silos) / len(header.participants)
    share = numbers[SAMPLES] / progress.total
    if not set(header.silos) <= set(progress.counted) or not 0 < share <= 1:
        raise terms.sum_refused(
            header.round_number, f"its silos have {numbers[SAMPLES]:.0f} of {progress.total} images that were counted"
        )
    return share
