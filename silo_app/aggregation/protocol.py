"""A silo's side of encrypted aggregation: a state machine that takes and gives bytes, without network and files.

    announce -> receive_roster -> receive_key -> per round: encrypt_update -> open_sum

Rounds are opened in order, each once: the scales of a round rest on the sums before it, so a silo that missed a sum
needs that sum first (`next_round` says which).
"""

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation import ring
from silo_app.aggregation.cipher import plain_modulus
from silo_app.aggregation.codec import FieldPlan, dequantise, next_scales, quantise
from silo_app.aggregation.exchange import KeyExchange
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.wire import KINDS, Header, body_digest, join, split
from silo_app.errors import KeyRefused, RoundRefused, UpdateRefused
from silo_app.identity import Identity

__all__ = ["SiloSession"]

LOG = logging.getLogger(__name__)
PLAIN_WIDTH = 32  # of float32
NOISE_VALUES = 4096  # fewer values are too few to tell noise from a sum
NOISE_BINS = 8
NOISE_EVENNESS = 0.02  # noise fills a field evenly; a sum does not, not even one whose values were all clipped
UNUSED = "Nothing was changed. If it repeats, tell the server's operator."


@dataclass(frozen=True, slots=True)
class _Sent:
    """What this silo gave to a round, kept until the round's sum is opened."""

    participants: tuple[str, ...]
    residual: NDArray[np.float32] | None
    """What the sum will lack if it contains this silo, float32 (P,)."""


@dataclass(slots=True)
class _Progress:
    """Where the job stands; `basis`, `scales` and `next_round` are the same at every silo."""

    basis: bytes
    """Digest chain over all rounds closed."""
    scales: NDArray[np.float64]
    """The largest change that the next round carries, float64 (T,)."""
    next_round: int = 0
    answered: int = -1
    """The last round that this silo gave an update to."""
    residual: NDArray[np.float32] | None = None
    """What rounding and clipping lost so far, float32 (P,)."""
    sent: _Sent | None = None


class SiloSession:
    """One silo in one job, from its announcement to the last sum. The job's key stays in its memory."""

    def __init__(
        self,
        job: str,
        identity: Identity,
        layout: Layout,
        *,
        initial: bytes,
        samples: int,
        settings: AggregationSettings | None = None,
        min_silos: int = 2,
        random: np.random.Generator | None = None,
    ) -> None:
        """Begin a job.

        `initial` is the digest of the initial weights (`layout.digest_of`), `samples` the number of images that this
        silo trains on, `min_silos` the smallest number of updates in a sum that this silo will open,
        `random` rounds (by default from a secret seed).
        """
        if samples < 1:
            raise UpdateRefused("no images to train on", where=identity.name, remedy="Ingest images, then join.")
        self.job = job
        self.silo = identity.name
        self.layout = layout
        self.samples = samples
        self.settings = settings or AggregationSettings()
        self.min_silos = max(min_silos, 2)
        self._exchange = KeyExchange(
            job=job,
            identity=identity,
            layout=layout,
            initial=initial,
            samples=samples,
            settings=self.settings,
            min_silos=self.min_silos,
        )
        basis = sha256(b"siloscope/basis/1" + layout.digest + initial + self.settings.digest).digest()
        self._progress = _Progress(basis, np.full(len(layout.names), self.settings.first_clip))
        self._random = random or np.random.Generator(np.random.SFC64(secrets.randbits(256)))
        if self._plain:
            LOG.warning("Job %s: ENCRYPTION IS OFF. The server can read the updates of this silo.", job)

    @property
    def next_round(self) -> int:
        """The round that this silo answers and opens next."""
        return self._progress.next_round

    def samples_by_silo(self) -> dict[str, int]:
        """Return how many images each silo of the job announced. Raises `KeyRefused` before the roster is known."""
        announcements = self._exchange.require_roster().announcements
        return {name: announcements[name].samples for name in sorted(announcements)}

    @property
    def _plain(self) -> bool:
        return self.settings.encryption == "none"

    def announce(self) -> bytes:
        """Return this silo's signed announcement; the same bytes when called again."""
        return self._exchange.announce()

    def receive_roster(self, announcements: Mapping[str, bytes]) -> dict[str, bytes]:
        """Believe who is in the job, or refuse; return the wrapped keys to relay, by receiver.

        Only the first silo in name order makes a key; for the others, and without encryption, the result is empty.
        Raises `SignatureInvalid`, `MessageInvalid`, `KeyRefused` or `UpdateRefused`, naming the silo.
        """
        return self._exchange.receive_roster(announcements)

    def receive_key(self, wrapped: bytes) -> None:
        """Take the key that the first silo made. Raises `SignatureInvalid`, `MessageInvalid` or `KeyRefused`."""
        self._exchange.receive_key(wrapped)

    def encrypt_update(
        self, round_number: int, update: NDArray[np.float32], participants: Collection[str]
    ) -> NDArray[np.uint8]:
        """Return this silo's message for a round, uint8 (n,).

        `update` is local minus global weights, float32 (P,); `participants` are the silos that were asked, over whose
        signed sample counts the weights are taken. Raises `KeyRefused`, `RoundRefused` or `UpdateRefused`.
        """
        self._require_turn(round_number)
        if self._progress.answered >= round_number:
            raise self._round_refused(round_number, "this silo has answered it before")
        weights = self._weights(participants)
        if self.silo not in weights:
            raise self._round_refused(round_number, "this silo is not among its participants")
        if update.shape != (self.layout.size,) or not np.isfinite(update).all():
            raise UpdateRefused(
                f"its update of shape {update.shape} is not {self.layout.size} finite values",
                where=f"{self.silo}, round {round_number}",
                remedy="This silo sits out the round. Look at its training: learning rate, damaged images.",
            )
        if self._plain:
            body, residual = (update * np.float32(weights[self.silo])).astype("<f4").view(np.uint8), None
        else:
            body, residual = self._encrypt(round_number, update, weights)
        self._progress.answered = round_number
        self._progress.sent = _Sent(tuple(weights), residual)
        return join(self._header(round_number, tuple(weights), body), body)

    def open_sum(
        self, round_number: int, message: NDArray[np.uint8] | bytes, contributors: Sequence[str]
    ) -> NDArray[np.float32]:
        """Return the weighted mean of the contributors' updates, float32 (P,), and go on to the next round.

        Raises `RoundRefused` for a round out of order or of too few silos, `KeyRefused` for another key, and
        `UpdateRefused` for what does not belong here or is not sane; nothing is then changed.
        """
        self._require_turn(round_number)
        header, body = split(message)
        self._require_ours(header, round_number, contributors)
        weights = self._weights(header.participants)
        share = sum(weights[name] for name in header.silos)
        if self._plain:
            update = self._read_plain(header, body) / np.float32(share)
            resolution = np.zeros(len(self.layout.names))
        else:
            steps = self._steps(round_number, len(weights))
            update = dequantise(self._decrypt(header, body), self._spread(steps), share)
            resolution = steps / share
        self._advance(header, update, resolution)
        return update

    def void_round(self, round_number: int) -> None:
        """Close a round that ended without a sum; what this silo gave to it is forgotten."""
        self._require_turn(round_number)
        self._close(b"void")

    def _encrypt(
        self, round_number: int, update: NDArray[np.float32], weights: Mapping[str, float]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the body of an update, uint8 (n,), and what it does not carry of it, float32 (P,)."""
        cipher = self._exchange.require_cipher()
        plan = FieldPlan(self.settings.width(round_number))
        weight = weights[self.silo]
        steps = self._spread(self._steps(round_number, len(weights)))
        carried = self._progress.residual
        wanted = update if carried is None else update + carried
        integers = quantise(wanted, steps, weight, plan.quota(weight, len(weights)), self._random)
        slots = plan.pack(integers, plain_modulus())
        # Here step 4 adds the masks, modulo `plain_modulus()`, to `slots`, uint64 (blocks, DEGREE): not built yet.
        # Until then a silo that gets hold of another silo's message can read it with the key that they share.
        words, seeds = cipher.encrypt(slots)
        body = np.concatenate([ring.to_wire(words), seeds.reshape(-1)])
        return body, wanted - dequantise(integers, steps, weight)

    def _decrypt(self, header: Header, body: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the sum of the contributors' integers, int32 (P,)."""
        plan = FieldPlan(header.bits)
        blocks = plan.blocks(header.size)
        words_bytes = ring.wire_bytes(blocks)
        if len(body) != words_bytes + len(header.silos) * blocks * ring.SEED_BYTES:
            raise self._update_refused(header, f"{len(body)} bytes for {len(header.silos)} silos' {header.size} values")
        words = ring.from_wire(body[:words_bytes])
        if words.max() >= ring.MODULUS:
            raise self._update_refused(header, "its numbers are not below the ciphertext modulus")
        slots = self._exchange.require_cipher().decrypt(words, body[words_bytes:].reshape(-1, blocks, ring.SEED_BYTES))
        # Here the masks of the silos that dropped out are taken off `slots` (step 7), when there are masks.
        integers = plan.unpack(slots, plain_modulus())
        self._require_no_noise(header, integers, plan)
        return integers[: header.size]

    def _read_plain(self, header: Header, body: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(body) != 4 * header.size:
            raise self._update_refused(header, f"{len(body)} bytes for {header.size} plain values")
        return np.frombuffer(body.tobytes(), dtype="<f4").astype(np.float32)

    def _steps(self, round_number: int, silos: int) -> NDArray[np.float64]:
        """Return the change of a weight that the integer 1 stands for, float64 (T,)."""
        return self._progress.scales / FieldPlan(self.settings.width(round_number)).levels(silos)

    def _spread(self, steps: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return each tensor's step at each of its values, float32 (P,)."""
        return np.repeat(steps.astype(np.float32), self.layout.sizes)

    def _weights(self, participants: Collection[str]) -> dict[str, float]:
        """Return the weights of a round's participants. Raises `RoundRefused` for too few, or silos not in the job."""
        roster = self._exchange.require_roster()
        names = set(participants)
        if strangers := names - roster.announcements.keys():
            raise self._round_refused(self.next_round, f"{len(strangers)} of its participants are not in the job")
        if len(names) < self.min_silos:
            raise self._round_refused(
                self.next_round, f"{len(names)} participants; this silo needs {self.min_silos} (training.min_silos)"
            )
        return roster.weights(names)

    def _header(self, round_number: int, participants: tuple[str, ...], body: NDArray[np.uint8]) -> Header:
        return Header(
            kind="update",
            encryption=self.settings.encryption,
            job=self.job,
            round_number=round_number,
            key=b"" if self._plain else self._exchange.require_cipher().key_id,
            layout=self.layout.digest,
            size=self.layout.size,
            bits=PLAIN_WIDTH if self._plain else self.settings.width(round_number),
            basis=self._progress.basis,
            participants=participants,
            silos=(self.silo,),
            body=body_digest(body),
        )

    def _require_turn(self, round_number: int) -> None:
        """Refuse a round that is over, and one whose predecessors this silo has not seen."""
        turn = self._progress.next_round
        if round_number < turn:
            raise self._round_refused(round_number, f"it is over; this silo is at round {turn}")
        if round_number > turn:
            raise self._round_refused(
                round_number,
                f"this silo is at round {turn}",
                f"Send the sums of rounds {turn} to {round_number - 1} first.",
            )

    def _require_ours(self, header: Header, round_number: int, contributors: Sequence[str]) -> None:
        """Refuse a sum of anything but this round of this job, as this silo and its key know it."""
        sent = self._progress.sent
        participants = sent.participants if sent else header.participants
        expected = self._header(round_number, participants, np.empty(0, dtype=np.uint8))
        if header.kind != "sum" or header.encryption != expected.encryption:
            raise self._update_refused(header, f"it is {KINDS[header.kind]} with encryption {header.encryption}")
        if header.key != expected.key:
            raise KeyRefused("the sum is under another key", where=self._place(round_number), remedy=UNUSED)
        if (header.job, header.round_number) != (self.job, round_number):
            raise self._round_refused(round_number, f"its sum says round {header.round_number} of job {header.job}")
        if header.agreement != expected.agreement:
            raise self._update_refused(header, "layout, width, participants or earlier sums differ from this silo's")
        if tuple(sorted(contributors)) != header.silos:
            raise self._update_refused(header, "it is of other silos than the server names")
        if len(header.silos) < self.min_silos:
            raise self._round_refused(
                round_number,
                f"{len(header.silos)} silos in its sum; this silo needs {self.min_silos} (training.min_silos)",
            )

    def _require_no_noise(self, header: Header, integers: NDArray[np.int32], plan: FieldPlan) -> None:
        """Refuse what a wrong key or a damaged ciphertext decrypts to: values that fill all fields evenly."""
        overfull = np.abs(integers).max() > plan.limit or integers[header.size :].any()
        if overfull or (header.size >= NOISE_VALUES and _is_even(integers[: header.size], plan.limit)):
            raise self._update_refused(header, "it decrypts to noise")

    def _advance(self, header: Header, update: NDArray[np.float32], resolution: NDArray[np.float64]) -> None:
        """Take a sum as done: new scales, what this silo still owes, the next round."""
        if not np.isfinite(update).all():
            raise self._update_refused(header, "it has values that are not finite")
        progress = self._progress
        if progress.sent and self.silo in header.silos:
            progress.residual = progress.sent.residual
        # The first scale is a guess, not a measurement: nothing of it is kept.
        kept = progress.scales * (self.settings.persistence if progress.next_round else 0.0)
        progress.scales = next_scales(
            update,
            self.layout,
            resolution=resolution,
            kept=kept,
            headroom=self.settings.headroom,
            floor=self.settings.min_scale,
        )
        self._close(header.digest)

    def _close(self, evidence: bytes) -> None:
        progress = self._progress
        progress.basis = sha256(progress.basis + evidence).digest()
        progress.sent = None
        progress.next_round += 1

    def _place(self, round_number: int) -> str:
        return f"{self.silo}, job {self.job}, round {round_number}"

    def _round_refused(self, round_number: int, problem: str, remedy: str = UNUSED) -> RoundRefused:
        return RoundRefused(f"the round was refused: {problem}", where=self._place(round_number), remedy=remedy)

    def _update_refused(self, header: Header, problem: str) -> UpdateRefused:
        return UpdateRefused(f"the sum was refused: {problem}", where=self._place(header.round_number), remedy=UNUSED)


def _is_even(integers: NDArray[np.int32], limit: int) -> bool:
    """Return whether the values, int32 (P,), fill [-limit, limit] evenly, as those of a wrong key do."""
    counts, _ = np.histogram(integers, bins=NOISE_BINS, range=(-limit, limit))
    return bool(np.abs(counts / len(integers) - 1 / NOISE_BINS).max() < NOISE_EVENNESS)
