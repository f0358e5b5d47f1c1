"""The server's side of a training job: relay the silos' key agreement, then add encrypted updates round by round.

The server holds ciphertexts and numbers about them (who, how many bytes, how long); it has no key, no weights and no
plaintext update, in memory or on disk (docs/explanation-encryption.md).
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from silo_app import durable
from silo_app.aggregation.sums import RoundSum
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import RoundRefused, SiloscopeError, UpdateRefused
from silo_app.flare import cells, words
from silo_app.flare.presence import Presence
from silo_app.flare.round_trip import Answers, Patience, ask
from silo_app.flare.site import job_folder, silos_of

RECORD_NAME = "rounds.json"
_JOIN_DEADLINE_S = 600.0
_JOIN_STRAGGLER_S = 60.0


@dataclass(frozen=True)
class _Sum:
    """The encrypted sum of one round: what the silos need to open it."""

    number: int
    message: Any  # uint8 (bytes,)
    contributors: list[str]


class TrainingRounds(Controller):  # type: ignore[misc]
    """`jobs/train` on the server."""

    def __init__(self, plan: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._given = plan or {}
        self._record: dict[str, Any] = {"rounds": []}
        self._members: list[str] = []
        self._missed: set[str] = set()

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Validate the plan, so that a wrong number ends the job with its name rather than in a silo's training."""
        try:
            self._plan = TrainingPlan.checked(self._given)
        except SiloscopeError as error:
            self.system_panic(str(error), fl_ctx)

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run the whole job: join, agree, rounds, finish."""
        self._presence = Presence(cells.core_of(fl_ctx.get_engine()), silos_of(fl_ctx))
        try:
            self._run(abort_signal, fl_ctx)
        except SiloscopeError as error:
            self._record["failed"] = {"code": error.code, "problem": error.problem}
            self._write_record(fl_ctx)
            self.system_panic(str(error), fl_ctx)
        finally:
            self._presence.close()

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to release: the sums are gone with the process."""

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """Drop what comes for a round that is over."""

    def _run(self, abort: Signal, fl_ctx: FLContext) -> None:
        if self._plan.encryption == "none":
            self.log_warning(fl_ctx, "ENCRYPTION IS OFF for this job: the server sees every silo's plain update")
        self._record |= {"job": fl_ctx.get_job_id(), "plan": self._plan.model_dump(mode="json")}
        silos = self._join(abort, fl_ctx)
        wrapped = self._agree(silos, abort, fl_ctx)
        last: _Sum | None = None
        for number in range(self._plan.rounds):
            if abort.triggered:
                return
            last = self._round(number, last, wrapped if number == 0 else {}, abort, fl_ctx)
        if last is not None and not abort.triggered:
            self._finish(last, abort, fl_ctx)

    def _join(self, abort: Signal, fl_ctx: FLContext) -> dict[str, bytes]:
        data = Shareable()
        data[words.PLAN] = json.dumps(self._plan.model_dump(mode="json"))
        everyone = silos_of(fl_ctx)
        answers = ask(self, words.TASK_JOIN, data, everyone, self._patience(joining=True), fl_ctx, abort)
        roster = {silo: bytes(reply[words.ANNOUNCEMENT]) for silo, reply in answers.accepted.items()}
        self._record["join"] = _who(answers)
        self.log_info(fl_ctx, f"joined: {', '.join(sorted(roster)) or 'nobody'}")
        self._require(roster.keys(), "joined the job", answers)
        self._members = sorted(roster)
        return roster

    def _agree(self, roster: dict[str, bytes], abort: Signal, fl_ctx: FLContext) -> dict[str, bytes]:
        data = Shareable()
        data[words.ROSTER] = roster
        answers = ask(self, words.TASK_AGREE, data, roster, self._patience(joining=True), fl_ctx, abort)
        wrapped: dict[str, bytes] = {}
        for reply in answers.accepted.values():
            wrapped |= {silo: bytes(key) for silo, key in reply[words.WRAPPED_KEYS].items()}
        self._record["agree"] = _who(answers)
        self._require(answers.accepted.keys(), "agreed on a key", answers)
        self._members = sorted(answers.accepted)
        return wrapped

    def _round(self, number: int, last: _Sum | None, wrapped: dict[str, bytes], abort: Signal, fl_ctx: FLContext) -> _Sum:
        start = time.monotonic()
        data = self._with_sum(last)
        data[words.ROUND] = number
        data[words.WRAPPED_KEYS] = wrapped
        data[words.PARTICIPANTS] = self._members
        total = RoundSum(str(fl_ctx.get_job_id()), number, min_silos=self._plan.min_silos)
        sizes: dict[str, int] = {}

        def take(silo: str, reply: Shareable) -> None:
            update = reply.pop(words.UPDATE)
            sizes[silo] = int(update.nbytes)
            total.add(update, silo=silo)

        gone = self._presence.is_gone
        answers = ask(self, words.TASK_ROUND, data, self._members, self._patience(), fl_ctx, abort, take, gone)
        if abort.triggered:
            raise RoundRefused(f"round {number} was aborted", remedy="Submit the job again when it may run.")
        self._require(answers.accepted.keys(), f"answered round {number}", answers)
        result = _Sum(number, total.result(), list(total.contributors))
        self._record["rounds"].append(
            _who(answers)
            | {
                "round": number,
                "seconds": round(time.monotonic() - start, 3),
                "upload_bytes": sizes,
                "download_bytes": int(result.message.nbytes),
                "reports": {silo: _numbers(reply) for silo, reply in answers.accepted.items()},
            }
        )
        self._write_record(fl_ctx)
        self.log_info(fl_ctx, f"round {number + 1}/{self._plan.rounds}: sum of {len(result.contributors)} silos")
        self._remember_absence(answers)
        return result

    def _finish(self, last: _Sum, abort: Signal, fl_ctx: FLContext) -> None:
        answers = ask(
            self, words.TASK_FINISH, self._with_sum(last), self._members, self._patience(joining=True), fl_ctx, abort
        )
        versions = {silo: str(reply[words.REPORT]["encoder_version"]) for silo, reply in answers.accepted.items()}
        self._record["finish"] = _who(answers) | {"encoder_versions": versions}
        self._write_record(fl_ctx)
        self._require(answers.accepted.keys(), "kept the encoder", answers)
        if len(set(versions.values())) != 1:
            raise UpdateRefused(
                f"the silos ended with different encoders: {versions}",
                where="round " + str(last.number),
                remedy="Compare the silos' torch and numpy versions, then train again.",
            )
        self.log_info(fl_ctx, f"encoder {next(iter(versions.values()))} kept by {len(versions)} silos")

    def _with_sum(self, last: _Sum | None) -> Shareable:
        data = Shareable()
        if last is not None:
            data[words.SUM_ROUND] = last.number
            data[words.SUM] = last.message
            data[words.CONTRIBUTORS] = last.contributors
        return data

    def _patience(self, *, joining: bool = False) -> Patience:
        deadline, straggler = self._plan.round_deadline_s, self._plan.straggler_wait_s
        if joining:
            deadline, straggler = _JOIN_DEADLINE_S, _JOIN_STRAGGLER_S
        return Patience(self._plan.min_silos, deadline, straggler, frozenset(self._missed))

    def _require(self, silos: Any, what: str, answers: Answers) -> None:
        if len(silos) >= self._plan.min_silos:
            return
        reasons = {silo: why["public"] for silo, why in answers.refused.items()} | answers.missing
        raise RoundRefused(
            f"only {len(silos)} silos {what}, {self._plan.min_silos} are needed; others: {reasons or 'none'}",
            remedy="Look at the named silos (`consortium status`, their logs), then submit the job again.",
        )

    def _remember_absence(self, answers: Answers) -> None:
        """Ask a silo that did not answer again in the next round, but wait for it no more."""
        self._missed = set(answers.missing)

    def _write_record(self, fl_ctx: FLContext) -> None:
        durable.write_text(job_folder(fl_ctx) / RECORD_NAME, json.dumps(self._record, indent=2))


def _who(answers: Answers) -> dict[str, Any]:
    return {"accepted": sorted(answers.accepted), "refused": answers.refused, "missing": answers.missing}


def _numbers(reply: Shareable) -> dict[str, float]:
    report = reply.get(words.REPORT) or {}
    return {str(k): float(v) for k, v in report.items() if isinstance(v, int | float)}
