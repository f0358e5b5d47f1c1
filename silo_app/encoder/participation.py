"""One silo's part in one training job, without NVFlare: join, agree on a key, train rounds, keep the encoder.

The global weights live here as one flat vector; the trainer's child process gets them by file and returns new ones. What
goes out is an encrypted update; what comes in is a sum that only the silos can open. After every sum and every update the
silo keeps its state (`job_state`), so that the job can be resumed when the server was killed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app import durable
from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.progress import EarlierJob, entering
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.sending import part_of
from silo_app.aggregation.settings import AggregationSettings
from silo_app.cases import EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder import job_state
from silo_app.encoder.acceptance import require_willing
from silo_app.encoder.averaging import Moments, step_of
from silo_app.encoder.beside import held_out_numbers, numbers_beside
from silo_app.encoder.entrance import Entrance
from silo_app.encoder.job_state import JobState
from silo_app.encoder.journal import Journal
from silo_app.encoder.late_copy import late_copy
from silo_app.encoder.ledger import ClosedRound
from silo_app.encoder.order import RoundOrder
from silo_app.encoder.own import Own
from silo_app.encoder.own_test import OwnTest
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.sampling import Weighable
from silo_app.encoder.selection import Best
from silo_app.encoder.sharing import SharedMetric, consent
from silo_app.encoder.telling import card_of, opening_of, own_of, settings_of
from silo_app.encoder.trainer import Trainer, ask_twice
from silo_app.encoder.vectors import read_vector, write_vector
from silo_app.errors import NotReady, RoundRefused
from silo_app.identity import Identity

__all__ = ["Participation", "RoundOrder"]

_log = logging.getLogger(__name__)
_ANEW = 1_000_003
"""So far from each other are the seeds of a training before and after a sum that was undone."""
_OWN = ("personal", "control", "squares")
"""What the trainer gives back beside the weights, for the silo alone."""


class Participation:
    """The state of one silo in one job; `folder` is private to the job (`exchange_folder`)."""

    def __init__(self, home: SiloHome, *, job: str, folder: Path, trainer: Trainer | None = None) -> None:
        self._home = home
        self._job = job
        self._folder = durable.private_folder(folder)
        self._identity = Identity.load(home.kit)
        self._trainer = trainer or Trainer.start(home.kit, self._folder, threads=home.config.training.threads)
        self._test = OwnTest(self._trainer, home.config.training.acceptance)
        self._jobs = durable.private_folder(home.root / "jobs")
        self._journal = Journal(self._jobs / job)
        self._weights: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._moments = Moments.none()
        self._own = Own()
        self._total = 0
        self._best = Best.none()
        self._undone: list[int] = []
        self._trained = 0
        self._before: dict[str, Any] = {}
        self._noted = -1
        self._lineage = [job]
        self._keyed = self._agreed = False
        self._answered: tuple[int, NDArray[np.uint8]] | None = None
        self._session: SiloSession | None = None
        self._entrance = Entrance(home, self._identity, self._lineage)
        self._rounding = np.random.Generator(np.random.PCG64())

    @property
    def next_round(self) -> int:
        """The round that this silo closes next; 0 before it has joined."""
        return self._session.next_round if self._session is not None else 0

    @property
    def exhausted(self) -> bool:
        """Whether the plan's patience is at its end; every silo that opened the same sums says the same."""
        return self._session is not None and self._best.selection.exhausted(self._plan.patience)

    def take_shared(self) -> list[SharedMetric]:
        """Return the pooled numbers since last asked that all silos in their sum agreed to share, if the job tracks any."""
        taken = self._journal.take_shared()
        return taken if taken and self._plan.track else []

    def close(self) -> None:
        """End the trainer and everything that it runs."""
        self._trainer.close()
        self._journal.close()

    def restore(self, plan: TrainingPlan, jobs: Sequence[str]) -> None:
        """Take up what this silo kept of the resumed training, whose jobs so far are `jobs`. Raises `NotReady`."""
        state = job_state.newest_of(self._jobs, jobs)
        if state.plan != settings_of(plan):
            raise NotReady("the resumed job has other settings than before", remedy="Submit it without --resume.")
        self._lineage = [*jobs, self._job]
        self._begin(plan, state)

    def ask_entry(self, plan: TrainingPlan, jobs: Sequence[str]) -> bytes | None:
        """Return the request to enter the training whose jobs so far are `jobs`; None if this silo need not ask."""
        self._plan, self._lineage = plan, [*jobs, self._job]
        self._entrance = Entrance(self._home, self._identity, self._lineage)
        return self._entrance.request(plan.admit)

    def admit(self, requests: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the earlier jobs' keys for who asks to enter, by silo. Raises as `Entrance.admit`."""
        return self._entrance.admit(requests, self._plan.admit, self._joined().earlier)

    def enter(self, admission: bytes) -> None:
        """Begin with the keys that a member gave, before the first closed round. Raises as `Entrance.opened`, `NotReady`."""
        earlier = self._entrance.opened(admission)
        self._begin(self._plan, None, earlier)

    def join(self, plan: TrainingPlan) -> bytes:
        """Open the data and the start weights; return the signed announcement. Raises `NotReady` without images."""
        if plan.resume is None:
            self._begin(plan, None)
        session = self._joined()
        if plan.resume is not None:  # once more: the announcement says which rounds are closed by now
            self._session, self._keyed, self._agreed = self._new_session(session.export_state()), False, False
        return self._joined().announce()

    def agree(self, announcements: Mapping[str, bytes], bundle_round: int) -> tuple[dict[str, bytes], bytes]:
        """Verify everybody's announcement; return the wrapped keys if this silo makes the job's key, and its first masks."""
        wrapped = self._joined().receive_roster(announcements)
        self._agreed = True
        return dict(wrapped), self._joined().share_secrets(bundle_round)

    def round(self, order: RoundOrder) -> NDArray[np.uint8]:
        """Open the last sum, train one round from it, and return the encrypted update, uint8 (n,).

        Asked again for a round that it has answered (a lost connection), it returns the same bytes.
        """
        if self._answered is not None and self._answered[0] == order.number:
            return self._answered[1]
        session = self._joined()
        if order.wrapped_key is not None:
            self.take_key(order.wrapped_key)
        start = time.monotonic()
        if order.last is not None:
            self.close_round(order.last)
        opened_s = time.monotonic() - start
        self._require_current(order)
        session.begin_round(order.number, order.participants)
        if order.content == "statistics":
            message = session.encrypt_statistics(order.number, {})
        elif order.content == "numbers":
            self._test_weights()
            message = session.encrypt_numbers(order.number, held_out_numbers(self._before))
        else:
            self._test_weights()
            trained = self._train(order.training_round or 0)
            if self._trained in self._undone:
                self._test.require_update(trained, self._before, self._trained)
            start = time.monotonic()
            self._reseed(order.training_round or 0)
            done = trained["steps"] / trained["planned"] * self._plan.counted(trained["unsure"])
            counts = part_of(self._samples, done) / self._samples
            update = self._own.sent(trained.pop("vector") - self._weights, counts)
            private = self._plan.privacy is not None
            numbers = numbers_beside(trained, {} if private else self._before, private=private)
            numbers |= consent(self._home.config.training.share_metrics)
            message = session.encrypt_update(order.number, update, numbers, done=done)
            own = own_of(trained, counts, encrypt_s=time.monotonic() - start, open_s=opened_s)
            self._journal.trained(self._trained, own)
        self._answered = order.number, message
        self._state().write(self._jobs)
        return message

    def sign(self, number: int, survivors: Sequence[str]) -> bytes:
        """Return the signature under who arrived."""
        return self._joined().sign_survivors(number, survivors)

    def reveal(self, number: int, signatures: Mapping[str, bytes]) -> bytes:
        """Return what takes masks off the sum of those whom enough silos signed."""
        return self._joined().reveal(number, signatures)

    def share(self, number: int) -> bytes:
        """Return this silo's mask bundle for a coming round."""
        return self._joined().share_secrets(number)

    def introduce(self, announcements: Mapping[str, bytes], wrapped_key: bytes | None) -> None:
        """Take roster and key late: this silo was away when the others agreed."""
        if not self._agreed:
            self._joined().receive_roster(announcements)
            self._agreed = True
        if wrapped_key is not None:
            self.take_key(wrapped_key)

    def take_key(self, wrapped: bytes) -> None:
        """Take the job's key; once is enough."""
        if not self._keyed:
            self._joined().receive_key(wrapped)
            self._keyed = True

    def close_round(self, last: ClosedRound) -> None:
        """Open a closed round's sum, or close it as void; one that is closed already changes nothing."""
        session = self._joined()
        if last.number < session.next_round:
            return  # the server repeats the sum when it asks again
        if last.message is None:
            self._void(last)
        else:
            before = self._state()
            opened = session.open_sum(last.number, last.message, last.contributors, last.reveals, last.bundles)
            if self._plan.select == "best":  # the losses in this sum are of the weights before it
                self._best = self._best.judged(self._trained, self._weights, opened.silos, opened.numbers)
            if opened.update is not None:
                before.write_before_sum(self._jobs)
                update, change = np.split(opened.update, [len(self._weights)])
                step, self._moments = step_of(self._plan.averaging, self._moments, update)
                self._weights = self._weights + step
                self._trained += 1
                share = opened.numbers["samples"] / self._total if self._total else 1.0
                self._own = self._own.closed(change, share=share, contributed=session.silo in opened.silos)
            elif opened.numbers.get("samples"):
                self._total = int(opened.numbers["samples"])
            self._journal.opened(self._trained, last.number, opened.silos, opened.numbers)
        self._state().write(self._jobs)

    def _void(self, last: ClosedRound) -> None:
        """Close a round without a sum; with one that undoes the last sum of updates all is as before that."""
        if last.undoes is None:
            self._joined().void_round(last.number)
        else:
            before = job_state.before_sum(self._jobs, self._lineage, last.undoes)
            self._joined().void_round(last.number, before.session)
            self._take_up(before)
            self._undone, self._noted = [*self._undone, self._trained], self._trained - 1
        self._own = self._own.voided()

    def finish(self, last: ClosedRound) -> EncoderVersion:
        """Open the last sum and keep the result as this silo's current encoder. Raises `SumRejected`."""
        self.close_round(last)
        kept = self._best.selection.best if len(self._best.weights) else self._trained
        if kept == self._trained:
            self._test_weights()
        else:
            self._weights = self._best.weights
            self._test.require_best(str(self._write("best")), self._before, kept)
        session = self._joined()
        threshold = session.threshold if self._plan.encryption == "bfv" else 0
        card = card_of(self._plan, job=self._job, trained=kept, silos=session.silos, threshold=threshold)
        saving: dict[str, Any] = {"weights": str(self._write("final")), "card": card, "current": True, "jobs": self._lineage}
        own = self._personal()
        saved = self._trainer.request("save", **saving, personal=own)
        if copy := late_copy(self._trainer, self._plan, self._trained, weights=saving["weights"], personal=own):
            self._trainer.request("save", **saving, personal=copy)
        self.close()
        job_state.forget_all(self._jobs)
        return EncoderVersion(saved["version"])

    def _begin(self, plan: TrainingPlan, state: JobState | None, earlier: tuple[EarlierJob, ...] = ()) -> None:
        require_willing(self._home.config.training, plan)
        job_state.forget_all(self._jobs, older_than_days=job_state.KEEP_DAYS)
        self._plan = plan
        opened = ask_twice(self._trainer, "open", **opening_of(plan, state.trained if state else 0, self._lineage))
        if not opened["train_views"]:
            raise NotReady("this silo has no images to train on", remedy="Run `silo ingest` first.")
        self._samples = plan.weight(int(opened["train_views"]), Weighable(*opened["weighable"]))
        names, shapes = zip(*opened["layout"], strict=True)
        if plan.scaffold:  # the control variates' change travels behind the update, with scales of its own
            names, shapes = (*names, *(f"control of {name}" for name in names)), (*shapes, *shapes)
        self._layout = Layout(tuple(names), tuple(tuple(shape) for shape in shapes))
        self._weights = read_vector(Path(opened["weights"]))
        self._initial = digest_of(self._weights)
        self._session = self._new_session(state.session if state else None, earlier)
        self._moments = Moments.none(plan.averaging, len(self._weights))
        self._own, self._total = Own.begun(len(self._weights), scaffold=plan.scaffold), 0
        if state is not None:
            self._take_up(state)
            self._total, self._undone = state.total, state.undone

    def _take_up(self, state: JobState) -> None:
        self._weights, self._trained, self._before = state.weights, state.trained, state.before
        self._moments, self._own = state.moments, state.own
        self._best = Best.of(state.selection, state.best)

    def _new_session(self, state: bytes | None, earlier: tuple[EarlierJob, ...] = ()) -> SiloSession:
        own, settings = self._identity, AggregationSettings(encryption=self._plan.encryption, bits=self._plan.field_bits)
        if earlier:
            state = entering(own.name, self._layout, self._initial, settings, samples=self._samples, earlier=earlier)
        return SiloSession(
            self._job,
            own,
            self._layout,
            initial=self._initial,
            samples=self._samples,
            settings=settings,
            min_silos=max(self._plan.min_silos, self._home.config.training.min_silos),
            random=self._rounding,
            state=state,
        )

    def _joined(self) -> SiloSession:
        if self._session is None:
            raise NotReady("this silo has not joined the job", remedy="It takes part again in the next job.")
        return self._session

    def _train(self, training_round: int) -> dict[str, Any]:
        trained = self._trainer.request(
            "train",
            weights=str(self._write("global")),
            settings=self._plan.training.model_dump(mode="json"),
            round=training_round,
            rounds=self._plan.rounds,
            seed=self._seed,
            job=self._job,
            personal=self._personal(),
            pull=self._plan.pull,
            tuned=self._plan.tuned_rounds,
            correction=str(self._written("correction", self._own.correction)) if self._plan.scaffold else None,
            squares=str(self._written("squares", self._own.squares)) if len(self._own.squares) else None,
        )
        if "views_at_once" in trained:
            _log.warning(
                "graphics memory was short: batches pass in parts of %d views from now on", trained["views_at_once"]
            )
        kept = (read_vector(Path(trained[name])) if name in trained else np.empty(0, np.float32) for name in _OWN)
        self._own = self._own.trained(*kept)
        return trained | {"vector": read_vector(Path(trained["weights"]))}

    def _personal(self) -> str | None:
        """Return where the trainer finds the silo's own weights; None before it has trained any."""
        return str(self._written("personal", self._own.personal)) if len(self._own.personal) else None

    @property
    def _seed(self) -> int:
        """What training draws from; other batches after an undone sum: two sums shall not differ by one silo's update."""
        return self._plan.seed + _ANEW * len(self._undone)

    def _reseed(self, training_round: int) -> None:
        """Let a round's random rounding follow from the plan's seed: training it again gives the same bits.

        Masks hide what is rounded; the draw need not be secret.
        """
        seeds = [self._seed, training_round, *self._identity.name.encode()]
        self._rounding.bit_generator.state = np.random.PCG64(seeds).state

    def _require_current(self, order: RoundOrder) -> None:
        here = self.next_round, self._trained
        asked = order.number, self._trained if order.training_round is None else order.training_round
        if here != asked:
            raise RoundRefused(
                f"asked for round {asked} with weights of round {here}",
                remedy="The server sends what this silo missed; it takes part again in a later round.",
            )

    def _test_weights(self) -> None:
        """Note how the weights do on the silo's held-out patients, and stand aside if they fail its acceptance test."""
        if self._noted < self._trained:
            result = self._trainer.request("evaluate", weights=str(self._write("global")), personal=self._personal())
            self._journal.held_out(self._trained, result)
            self._noted = self._trained
            why = self._test.why(self._before, result)
            if why and self._trained:
                self._joined().reject_sum(self.next_round - 1, why)
            else:
                self._before = {name: result.get(name) for name in ("loss", "auc", "views", "known")}
        if self._joined().rejected:
            raise self._test.stands_aside(self._joined().rejected, self._trained)

    def _state(self) -> JobState:
        """Return what a resumed job needs; once it is kept, the state of the job that this one resumes has served."""
        return JobState(
            job=self._job,
            weights=self._weights,
            moments=self._moments,
            own=self._own,
            total=self._total,
            session=self._joined().export_state(),
            trained=self._trained,
            plan=settings_of(self._plan),
            before=self._before,
            selection=self._best.selection.content(),
            best=self._best.flat,
            next_round=self.next_round,
            undone=self._undone,
        )

    def _write(self, name: str) -> Path:
        return self._written(name, self._weights)

    def _written(self, name: str, vector: NDArray[np.float32]) -> Path:
        path = self._folder / f"{name}.safetensors"
        write_vector(path, vector)
        return path
