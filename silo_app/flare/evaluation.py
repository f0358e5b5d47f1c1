"""`jobs/evaluate`: every silo tells how an encoder does on its held-out patients: aggregates, on the silo's terms."""

import json
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app import config, durable
from silo_app.encoder.evaluation_answer import SiloAnswer
from silo_app.encoder.evaluation_record import RECORD_NAME, EvaluationRecord
from silo_app.encoder.tell import EvaluationPlan, Telling
from silo_app.errors import RoundRefused, SiloscopeError
from silo_app.flare import words
from silo_app.flare.containment import contain
from silo_app.flare.round_trip import ask_each
from silo_app.flare.site import failure, job_folder, kit_of, refusal, silos_of, unknown_task


class EvaluateEverywhere(Controller):  # type: ignore[misc]
    """`jobs/evaluate` on the server."""

    def __init__(self, plan: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._given = plan or {}
        self._plan: EvaluationPlan | None = None

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Validate the plan, so that a wrong setting ends the job with its name."""
        contain(fl_ctx)
        try:
            self._plan = EvaluationPlan.checked(self._given)
        except SiloscopeError as error:
            self.system_panic(str(error), fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing to release."""

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """Drop what comes after the deadline."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send one task to every silo, and write down what each tells; nothing if the plan was refused."""
        if self._plan is None:
            return
        task = Shareable()
        task[words.PLAN] = self._plan.model_dump_json()
        told: dict[str, SiloAnswer] = {}

        def take(silo: str, reply: Shareable) -> None:
            told[silo] = SiloAnswer.checked(json.loads(reply[words.REPORT]))

        everyone = silos_of(fl_ctx)
        answers = ask_each(self, words.TASK_EVALUATE, task, everyone, self._plan.deadline_s, fl_ctx, abort_signal, take)
        refused = {silo: why["public"] for silo, why in answers.refused.items()}
        record = EvaluationRecord(silos=told, refused=refused, missing=answers.missing)
        durable.write_text(job_folder(fl_ctx) / RECORD_NAME, json.dumps(record.content(), indent=2))
        self.log_info(fl_ctx, f"evaluated: {sorted(told)}, refused: {refused}, missing: {answers.missing}")
        if len(told) < self._plan.min_silos and not abort_signal.triggered:
            error = RoundRefused(
                f"only {len(told)} silos answered the evaluation: {refused} {answers.missing}",
                remedy="Look at the named silos; each needs held-out patients and an encoder, and a policy that allows it.",
            )
            self.system_panic(str(error), fl_ctx)


class SiloEvaluation(Executor):  # type: ignore[misc]
    """`jobs/evaluate` at a silo: the encoder runs in a child process, as in training."""

    def __init__(self) -> None:
        super().__init__()
        self._telling: Telling | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:  # noqa: ARG002  (NVFlare's signature)
        """End the child process with the job, whatever ends the job."""
        if event_type in {EventType.END_RUN, EventType.ABORT_TASK} and self._telling is not None:
            self._telling.close()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer with what the silo's policy lets it tell."""
        del abort_signal  # ABORT_TASK ends the child, which ends the call that waits for it
        if task_name != words.TASK_EVALUATE:
            return unknown_task(task_name)
        try:
            plan = EvaluationPlan.checked(json.loads(shareable[words.PLAN]))
            home, folder = config.load(kit_of(fl_ctx)), job_folder(fl_ctx) / "siloscope"
            self._telling = Telling(home, job=str(fl_ctx.get_job_id()), folder=folder)
            reply = make_reply(ReturnCode.OK)
            reply[words.REPORT] = self._telling.answer(plan).model_dump_json()
        except SiloscopeError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001  (an exception here would end this process, and with it everybody's job)
            return failure()
        return reply
