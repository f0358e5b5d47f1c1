"""The server's side of a training job: relay the silos' key agreement, then run round after round until there is an encoder.

The server holds ciphertexts and numbers about them (who, how many bytes, how long); it has no key, no weights and no
plaintext update, in memory or on disk (docs/explanation-encryption.md). Whatever happens to silos, the job ends in one of
three states: finished, failed with a reason, aborted.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from silo_app.aggregation.vetting import Vetting, most_of
from silo_app.cases import is_encoder_version
from silo_app.encoder.job_record import REJECTED, JobRecord, Quarantined
from silo_app.encoder.ledger import NUMBERS, STATISTICS, UPDATE, Ledger
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.roll import Roll
from silo_app.encoder.telling import settings_of
from silo_app.errors import RoundRefused, SiloscopeError, UpdateRefused
from silo_app.flare import words
from silo_app.flare.catch_up import CatchUp
from silo_app.flare.containment import contain
from silo_app.flare.enrolment import Enrolment
from silo_app.flare.exchange import Exchanges
from silo_app.flare.line import Line, quarantined
from silo_app.flare.memory import give_back_freed
from silo_app.flare.presence import Presence
from silo_app.flare.round_trip import Patience
from silo_app.flare.site import job_folder, kit_of, rounds_folder, silos_of
from silo_app.flare.tracking import Receivers
from silo_app.identity import Identity

RECORD_NAME = "rounds.json"
_COUNTS = 3
"""So often are statistics repeated for one silo."""
_FINISH_DEADLINE_S = 600.0
_FINISH_STRAGGLER_S = 60.0


@dataclass
class _Voids:
    """How many rounds in a row have no sum; one whose sum nobody could open never had one."""

    in_a_row: int = 0
    why: str = ""
    _before: int = 0

    def closed(self, void: str) -> None:
        """Count a round that ended with a sum, or for the reason `void` without."""
        self._before, self.in_a_row = self.in_a_row, self.in_a_row + 1 if void else 0
        self.why = void

    def taken_back(self, why: str = "no silo can open its sum") -> None:
        """Count the last round as one without a sum."""
        self.in_a_row, self.why = self._before + 1, why


class TrainingRounds(Controller):  # type: ignore[misc]
    """`jobs/train` on the server."""

    def __init__(self, plan: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._given = plan or {}
        self._ready = False
        self._counts: Counter[str] = Counter()
        self._voids = _Voids()
        self._enough = False
        self._receivers: Receivers | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Give the pooled numbers that silos share to whoever tracks the job."""
        super().handle_event(event_type, fl_ctx)
        if self._receivers is not None:
            self._receivers.handle(event_type, fl_ctx)

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Validate the plan, so that a wrong number ends the job with its name rather than in a silo's training."""
        give_back_freed()
        contain(fl_ctx)
        try:
            given = TrainingPlan.checked(self._given)
            self._ledger, self._plan = _opened(given, fl_ctx)
            self._trust = Identity.load(kit_of(fl_ctx)).trust
            self._receivers = Receivers(self._plan.track, fl_ctx) if self._plan.track else None
            self._ready = True
        except SiloscopeError as error:
            self.system_panic(str(error), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run the whole job: join, agree, rounds, finish; nothing if the plan was refused (NVFlare calls it even then)."""
        if not self._ready:
            return
        silos, job = silos_of(fl_ctx), str(fl_ctx.get_job_id())
        presence = Presence.of(fl_ctx, silos)
        roll = Roll(masked=self._plan.encryption != "none")
        self._line = Line(self, fl_ctx, abort_signal, roll, presence, Vetting(job, self._trust))
        record = JobRecord(job_folder(fl_ctx) / RECORD_NAME, job, self._plan.model_dump(mode="json"), self._ledger.jobs[:-1])
        try:
            self._run(record, silos)
        except SiloscopeError as error:
            if abort_signal.triggered:
                record.end("aborted")
                return
            record.end("failed", code=error.code, problem=error.problem)
            self.system_panic(str(error), fl_ctx)
        except Exception:
            record.end("failed", code="internal", problem="an unexpected error; the server's log has the traceback")
            raise
        finally:
            presence.close()

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to release: the sums are gone with the process."""

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """Drop what comes for a round that is over."""

    def _run(self, record: JobRecord, silos: list[str]) -> None:
        line, plan = self._line, self._plan
        if plan.encryption == "none":
            line.tell("ENCRYPTION IS OFF for this job: the server sees every silo's plain update")
        catch_up = CatchUp(line, self._ledger)
        try:
            agreed = Enrolment(line, self._ledger, plan, record, catch_up).run(silos)
            exchanges = Exchanges(line, self._ledger, plan, catch_up, agreed)
            self._rounds(exchanges, record)
            while not self._finish(exchanges, record):
                self._rounds(exchanges, record)
        finally:
            catch_up.close()

    def _rounds(self, exchanges: Exchanges, record: JobRecord) -> None:
        """Run rounds until there are as many sums as the plan wants. Raises `RoundRefused` after too many void ones."""
        voids = self._voids
        while voids.in_a_row < self._plan.max_void_rounds:
            if (content := self._next(enough=self._enough)) is None:
                return
            done = exchanges.run(content, self._ledger.sums(UPDATE) if content == UPDATE else None)
            record.add(done)
            if done.takes_back is not None or done.undoes is not None:
                voids.taken_back()
            voids.closed(done.void)
            self._enough = self._enough or (bool(done.contributors) and done.enough >= set(done.contributors))
        raise RoundRefused(
            f"{voids.in_a_row} rounds in a row ended without a sum; the last because {voids.why}",
            remedy="Look at the silos named in rounds.json, then go on: silo job submit jobs/train --resume.",
        )

    def _next(self, *, enough: bool) -> str | None:
        """Return what the next round is of: counts, then updates, and the last weights' losses if the best are kept."""
        ledger = self._ledger
        if not ledger.sums(STATISTICS):
            return STATISTICS
        if ledger.sums(NUMBERS):
            return None
        if ledger.sums(UPDATE) < self._plan.rounds and not enough:
            return STATISTICS if self._has_uncounted() else UPDATE
        return NUMBERS if self._plan.select == "best" else None

    def _has_uncounted(self) -> bool:
        """Return whether a silo that can take part, or is about to, is not in the last statistics: so it has no weight.

        It was late for them, or has entered since. Nobody counts again and again for one that never sends its number.
        """
        roll, last = self._line.roll, self._ledger.last(STATISTICS)
        missing = set(roll.members) - set(last.contributors if last else ())
        near = {silo for silo in missing if roll.position(silo) >= self._ledger.next_round - 1}
        wanted = {silo for silo in near if self._counts[silo] < _COUNTS and not self._line.is_absent(silo)}
        self._counts.update(wanted)
        return bool(wanted)

    def _until_kept(self) -> Patience:
        """Return how long is waited for the silos to keep the encoder; one that ended early trains its own copy before."""
        plan = self._plan
        rounds = len(plan.left_to_tune(self._ledger.sums(UPDATE)))
        deadline, straggler = rounds * plan.round_deadline_s, rounds * plan.straggler_wait_s
        return Patience(plan.min_silos, max(_FINISH_DEADLINE_S, deadline), max(_FINISH_STRAGGLER_S, straggler))

    def _finish(self, exchanges: Exchanges, record: JobRecord) -> bool:
        """Let the silos keep the encoder; return whether they did: none does if no silo can open the last sum."""
        line, roll = self._line, self._line.roll
        exchanges.bring_up(self._ledger.next_round)
        silos = [silo for silo in roll.members if roll.position(silo) >= self._ledger.next_round - 1]
        patience = self._until_kept()
        versions: dict[str, str] = {}

        def take(silo: str, reply: Shareable) -> None:
            version = reply[words.REPORT]["encoder_version"]
            if not isinstance(version, str) or not is_encoder_version(version):
                raise UpdateRefused("it names no encoder", where=silo, remedy="Install the others' version of siloscope.")
            versions[silo] = version

        answers = line.ask(words.TASK_FINISH, exchanges.last(), silos, patience, take=take)
        absent = quarantined(answers, "finish")
        if exchanges.take_back(last := self._ledger.next_round - 1, absent, "finish"):
            self._voids.taken_back()
            record.take_back(last)
            return False
        undoes = exchanges.rejected(absent, "finish", asked=len(silos), needed=self._plan.min_silos)
        if undoes is not None:
            self._voids.taken_back(exchanges.undo(undoes))
            record.take_back(undoes, REJECTED)
            return False
        agreed = most_of(versions.values())
        kept = {silo: one for silo, one in versions.items() if one == agreed}
        others = {silo: Quarantined.other_encoder() for silo in versions if silo not in kept}
        record.step("finish", kept, absent | others, encoder_versions=kept)
        if len(versions) < self._plan.min_silos:
            raise RoundRefused(
                f"only {len(versions)} silos kept the encoder, {self._plan.min_silos} are needed",
                remedy="Look at the silos named in rounds.json, then go on: silo job submit jobs/train --resume.",
            )
        if len(kept) < self._plan.min_silos:
            raise UpdateRefused(
                f"the silos ended with different encoders: {versions}",
                where="finish",
                remedy="Compare the silos' torch and numpy versions, then train again.",
            )
        self._ledger.remove()
        record.end("finished")
        without = f"; {', '.join(others)} ended with another" if others else ""
        line.tell(f"encoder {agreed} kept by {len(kept)} silos{without}")
        return True


def _opened(given: TrainingPlan, fl_ctx: FLContext) -> tuple[Ledger, TrainingPlan]:
    """Return a new ledger, or that of the job to resume with the plan that it began with."""
    root, job = rounds_folder(fl_ctx), str(fl_ctx.get_job_id())
    if given.resume is None:
        return Ledger.begin(root, job, settings_of(given)), given
    ledger = Ledger.resume(root, given.resume, job)
    return ledger, TrainingPlan.checked(ledger.plan | given.model_dump(mode="json", include={"resume", "admit"}))


__all__ = ["RECORD_NAME", "TrainingRounds"]
