"""A silo's side of encrypted aggregation: a state machine that takes and gives bytes, without network and files.

    announce -> receive_roster -> receive_key
    per round: share_secrets -> begin_round -> encrypt_update (or encrypt_statistics, encrypt_numbers)
               -> sign_survivors -> reveal -> open_sum, or void_round

Rounds are closed in order, each once: the scales of a round rest on the sums before it, so a silo that missed a sum
needs that sum first (`next_round` says which). `share_secrets` alone may run ahead of the round.
"""

import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from silo_app.aggregation.cipher import Cipher
from silo_app.aggregation.exchange import KeyExchange
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.learning import learn
from silo_app.aggregation.masked_round import MaskedRound, digest_of_bundles, read_bundles
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.opening import Opened
from silo_app.aggregation.place import Members, Place
from silo_app.aggregation.progress import EarlierJob, Progress, Sent, State, begun, resumed, undone
from silo_app.aggregation.receiving import read_encrypted, read_plain, require_ours
from silo_app.aggregation.sending import Envelope, message, part_of, require_finite
from silo_app.aggregation.settings import AggregationSettings, threshold
from silo_app.aggregation.terms import Terms
from silo_app.aggregation.unmasking import remaining
from silo_app.aggregation.wire import Header, split
from silo_app.errors import UpdateRefused
from silo_app.identity import Identity

__all__ = ["Opened", "SiloSession"]

LOG = logging.getLogger(__name__)
SHARED_AHEAD = 8


@dataclass(frozen=True, slots=True)
class _Key:
    """What opens the sums of this job, or of one that it resumes; there is no cipher without encryption."""

    members: Members
    cipher: Cipher | None


@dataclass(frozen=True, slots=True)
class _Begun:
    """A round that this silo takes part in."""

    number: int
    participants: tuple[str, ...]


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
        state: bytes | None = None,
    ) -> None:
        """Begin a job, or go on with one.

        `initial` is the digest of the initial weights (`layout.digest_of`), `samples` the number of images that this
        silo weighs (nobody but the silos learns more than sums of it), `min_silos` the smallest number of updates in a
        sum that this silo will open, `random` rounds (by default from a secret seed). `state` is what `export_state` gave
        in the job that this one resumes, or `entering` of a silo that was not in it.
        """
        if samples < 1:
            raise UpdateRefused("no images to train on", where=identity.name, remedy="Ingest images, then join.")
        self.job = job
        self.silo = identity.name
        self.layout = layout
        self.settings = settings or AggregationSettings()
        self.min_silos = max(min_silos, 2)
        self._identity = identity
        self._terms = Terms(job, identity.name, layout, self.settings, self.min_silos)
        self._progress: Progress = begun(layout, initial, self.settings, first_job=job, samples=samples)
        self.earlier: tuple[EarlierJob, ...] = ()
        """The jobs that this one resumes, as far as this silo has their keys, oldest first."""
        if state:
            self._progress, self.earlier = resumed(state, self.silo, layout, self.settings)
        self._exchange = KeyExchange(
            job=job,
            identity=identity,
            layout=layout,
            initial=initial,
            first_job=self._progress.first_job,
            next_round=self._progress.next_round,
            basis=self._progress.basis,
            settings=self.settings,
            min_silos=self.min_silos,
        )
        self._rounds: dict[int, MaskedRound] = {}
        self._begun: _Begun | None = None
        self._random = random or np.random.Generator(np.random.SFC64(secrets.randbits(256)))
        if self._terms.plain:
            LOG.warning("Job %s: ENCRYPTION IS OFF. The server can read the updates of this silo.", job)

    @property
    def next_round(self) -> int:
        """The round that this silo answers and closes next."""
        return self._progress.next_round

    @property
    def samples(self) -> int:
        """How many images this silo weighs."""
        return self._progress.samples

    @property
    def rejected(self) -> str:
        """Why this silo's own acceptance test refused the last sum; empty if it did not."""
        return self._progress.rejected

    @property
    def silos(self) -> tuple[str, ...]:
        """The silos of the job, sorted. Raises `KeyRefused` before they are known."""
        return tuple(sorted(self._exchange.require_roster().announcements))

    @property
    def threshold(self) -> int:
        """T: how many silos must sign who arrived before this silo reveals anything."""
        return threshold(len(self.silos), self.min_silos)

    # --- the job's beginning ---

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

    # --- a round ---

    def share_secrets(self, round_number: int) -> bytes:
        """Return this silo's signed mask bundle for a round that is not over; the same when called again.

        It may run ahead of the rounds that this silo has closed. Without masks it is empty.
        """
        if self._terms.plain:
            return b""
        if round_number not in self._rounds:
            if round_number < self.next_round or len(self._rounds) >= SHARED_AHEAD:
                raise self._terms.round_refused(
                    round_number, f"this silo makes no masks for it; it is at round {self.next_round}"
                )
            self._rounds[round_number] = MaskedRound(
                Place(self._members(), round_number), self._identity, self._exchange.private, self.threshold
            )
        return self._rounds[round_number].share()

    def begin_round(self, round_number: int, participants: Mapping[str, bytes]) -> None:
        """Verify a round's participants and their mask bundles (empty without masks), before any training.

        Raises `RoundRefused` for a round out of turn, without this silo or of too few silos, `KeyRefused`,
        `SignatureInvalid` or `MessageInvalid` for a bundle, naming its silo.
        """
        self._require_turn(round_number)
        names = tuple(sorted(participants))
        self._require_participants(names)
        if not self._terms.plain:
            self._masked_round(round_number).begin(participants)
        self._begun = _Begun(round_number, names)

    def encrypt_update(
        self,
        round_number: int,
        update: NDArray[np.float32],
        numbers: Mapping[str, float] | None = None,
        *,
        done: float = 1.0,
    ) -> NDArray[np.uint8]:
        """Return this silo's message for a round that it began, uint8 (n,).

        `update` is local minus global weights, float32 (P,); `numbers` are summed beside it, exactly (`tallies`), under
        names that must be the same at all silos. A silo that trained only the share `done` of its round, in (0, 1], weighs
        as if it had that share of its images. Raises `KeyRefused`, `RoundRefused` or `UpdateRefused`.
        """
        if self.rejected:
            problem = f"this silo's acceptance test refused the last sum: {self.rejected}"
            raise self._terms.round_refused(round_number, problem, "It waits for a sum that passes.")
        require_finite(self._terms, round_number, update)
        return self._send(round_number, "update", numbers, update, part_of(self.samples, done))

    def encrypt_statistics(self, round_number: int, numbers: Mapping[str, float] | None = None) -> NDArray[np.uint8]:
        """Return this silo's message for a round of numbers alone from which weights come, uint8 (n,).

        Its sum tells every silo how many images all silos train on together; before it, all silos weigh the same.
        """
        return self._send(round_number, "statistics", numbers)

    def encrypt_numbers(self, round_number: int, numbers: Mapping[str, float]) -> NDArray[np.uint8]:
        """Return this silo's message for a round of numbers alone (metrics), uint8 (n,)."""
        return self._send(round_number, "numbers", numbers)

    def sign_survivors(self, round_number: int, survivors: Collection[str]) -> bytes:
        """Return this silo's signature under the set of silos whose messages arrived: one set a round, ever.

        Raises `RoundRefused` for another set than before, silos beside the round, or fewer than `min_silos`.
        """
        return self._masked_round(round_number).sign(survivors, self.min_silos) if not self._terms.plain else b""

    def reveal(self, round_number: int, signatures: Mapping[str, bytes]) -> bytes:
        """Return what others need to take masks off the survivors' sum, and nothing that opens one silo's message.

        Raises `SurvivorsDisputed` if a silo signed another set, `RoundRefused` below `threshold` signatures.
        """
        return self._masked_round(round_number).reveal(signatures) if not self._terms.plain else b""

    def open_sum(
        self,
        round_number: int,
        message: NDArray[np.uint8] | bytes,
        contributors: Sequence[str],
        reveals: Mapping[str, bytes] | None = None,
        bundles: Mapping[str, bytes] | None = None,
    ) -> Opened:
        """Return what is in a round's sum, and go on to the next round.

        `reveals` are what the silos revealed; `bundles` are the round's, for a silo that did not begin it. Raises
        `RoundRefused` for a round out of order, of too few silos or too few reveals, `KeyRefused` for another key, and
        `UpdateRefused` for what does not belong here or is not sane; nothing is then changed.
        """
        self._require_turn(round_number)
        header, body = split(message)
        key = self._key_of(header.job)
        names, terms = key.members.names, replace(self._terms, job=key.members.job)
        steps = self._terms.steps(self._progress, len(names))
        identity = key.cipher.key_id if key.cipher else b""
        require_ours(terms, self._progress, header, contributors, key=identity, silos=names)
        if key.cipher is None:
            opened = read_plain(terms, self._progress, header, body)
        else:
            masks = self._remaining(header, key.members, reveals or {}, bundles or {})
            opened = read_encrypted(terms, self._progress, header, body, key.cipher, masks, steps)
        self._advance(header, opened, steps)
        return opened

    def void_round(self, round_number: int, undo: bytes | None = None) -> None:
        """Forget what this silo gave to a round without a sum; with `undo`, of before it, the last sum of updates too."""
        self._require_turn(round_number)
        if undo is not None:
            self._progress = undone(self._progress, undo, self.layout)
        self._close(b"void" if undo is None else b"undo")

    def reject_sum(self, round_number: int, reason: str) -> None:
        """Stand aside after the sum of `round_number`, the last one opened, failed this silo's own acceptance test.

        Other silos build on the sum, so it stays. But this silo gives nothing more to the job until a later one passes.
        """
        if round_number != self.next_round - 1 or not reason:
            raise self._terms.round_refused(round_number, "only the last opened sum can be rejected, with a reason")
        LOG.warning("%s: this silo's acceptance test refused the sum: %s", self._terms.where(round_number), reason)
        self._progress.rejected = reason

    def export_state(self) -> bytes:
        """Return all that this silo needs to go on in a job that resumes this one: secret, for a private file."""
        current: tuple[EarlierJob, ...] = ()
        if self._exchange.roster is not None and (self._exchange.secret or self._terms.plain):
            members = self._members()
            current = (EarlierJob(self.job, members.roster, members.names, self._exchange.secret),)
        earlier = tuple({one.job: one for one in (*self.earlier, *current)}.values())  # of a job that began twice the last
        return State(self.silo, self.layout.digest, self.settings.digest, self._progress, earlier).packed()

    # --- within ---

    def _send(
        self,
        round_number: int,
        content: str,
        numbers: Mapping[str, float] | None,
        update: NDArray[np.float32] | None = None,
        samples: int | None = None,
    ) -> NDArray[np.uint8]:
        begun = self._require_begun(round_number)
        rounds = self._masked_round(round_number) if not self._terms.plain else None
        envelope = Envelope(
            begun.participants,
            len(self.silos),
            None if self._terms.plain else self._exchange.require_cipher(),
            rounds.masks() if rounds else Masks((), ()),
            rounds.digest if rounds else b"",
        )
        sent, residual = message(
            self._terms,
            self._progress,
            envelope,
            content=content,
            numbers=numbers or {},
            samples=samples or self.samples,
            update=update,
            random=self._random,
        )
        self._progress.answered = round_number
        self._progress.sent = Sent(self.job, begun.participants, residual)
        return sent

    def _key_of(self, job: str) -> _Key:
        """Return key and silos of an earlier job if `job` is one that this job resumes, else of this job."""
        for one in self.earlier:
            if one.job == job != self.job:
                cipher = None if self._terms.plain else Cipher(one.secret)
                return _Key(Members(one.job, one.roster, one.names, self._identity.trust), cipher)
        return _Key(self._members(), None if self._terms.plain else self._exchange.require_cipher())

    def _remaining(
        self, header: Header, members: Members, reveals: Mapping[str, bytes], bundles: Mapping[str, bytes]
    ) -> Masks:
        """Return what takes the masks off a sum."""
        place = Place(members, header.round_number)
        own = self._rounds.get(place.number)
        if own is not None and own.bundles and own.digest == header.masks and members.job == self.job:
            read = own.bundles
        elif digest_of_bundles(bundles) == header.masks:
            read = read_bundles(bundles, place)
        else:
            raise self._terms.sum_refused(place.number, "its masks are not those of the bundles that came with it")
        if tuple(sorted(read)) != header.participants:
            raise self._terms.sum_refused(place.number, "its masks are of other silos than its participants")
        return remaining(place, read, header.silos, reveals)

    def _advance(self, header: Header, opened: Opened, steps: NDArray[np.float64]) -> None:
        """Take a sum as done: new scales, what this silo still owes, the next round."""
        learned = learn(self._terms, self._progress, header, opened, steps)
        if learned.sent and self.silo in header.silos:
            learned.residual = learned.sent.residual
        self._progress = learned
        self._close(header.digest)

    def _close(self, evidence: bytes) -> None:
        progress = self._progress
        progress.basis = sha256(progress.basis + evidence).digest()
        progress.sent, self._begun = None, None
        self._rounds = {number: one for number, one in self._rounds.items() if number > progress.next_round}
        progress.next_round += 1

    def _require_turn(self, round_number: int) -> None:
        """Refuse a round that is over, and one whose predecessors this silo has not seen."""
        turn = self._progress.next_round
        if round_number < turn:
            raise self._terms.round_refused(round_number, f"it is over; this silo is at round {turn}")
        if round_number > turn:
            raise self._terms.round_refused(
                round_number,
                f"this silo is at round {turn}",
                f"Send the sums of rounds {turn} to {round_number - 1} first.",
            )

    def _require_begun(self, round_number: int) -> _Begun:
        self._require_turn(round_number)
        if self._progress.answered >= round_number:
            raise self._terms.round_refused(round_number, "this silo has answered it before")
        if self._begun is None or self._begun.number != round_number:
            raise self._terms.round_refused(round_number, "this silo has not begun it")
        return self._begun

    def _require_participants(self, names: tuple[str, ...]) -> None:
        """Refuse too few participants, or silos not in the job."""
        problem = ""
        if strangers := set(names) - set(self.silos):
            problem = f"{len(strangers)} of its participants are not in the job"
        elif len(names) < self.min_silos:
            problem = f"{len(names)} participants; this silo needs {self.min_silos} (training.min_silos)"
        elif self.silo not in names:
            problem = "this silo is not among its participants"
        if problem:
            raise self._terms.round_refused(self.next_round, problem)

    def _masked_round(self, round_number: int) -> MaskedRound:
        if round_number not in self._rounds:
            raise self._terms.round_refused(round_number, "this silo has no masks for it")
        return self._rounds[round_number]

    def _members(self) -> Members:
        return Members.of(self.job, self._exchange.require_roster(), self._identity.trust)
