"""The silo's side of a training job: each task is one call of `Participation`, and every error becomes a reply.

The trainer is a child process of this one, so a crash of training (out of memory, a broken driver) is an error result of
one round. NVFlare ends a whole job when one site's job process dies; this process does nothing that kills it.
"""

import json
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app import config
from silo_app.encoder.participation import Participation, RoundOrder, SumMessage
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import NotReady, SiloscopeError
from silo_app.flare import words
from silo_app.flare.site import failure, job_folder, kit_of, refusal


class SiloTraining(Executor):  # type: ignore[misc]
    """`jobs/train` at a silo."""

    def __init__(self) -> None:
        super().__init__()
        self._part: Participation | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:  # noqa: ARG002  (NVFlare's signature)
        """End the trainer with the job, whatever ends the job."""
        if event_type in {EventType.END_RUN, EventType.ABORT_TASK} and self._part is not None:
            self._part.close()
            if event_type == EventType.END_RUN:
                self._part = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task."""
        del abort_signal  # ABORT_TASK ends the trainer, which ends the call that waits for it
        try:
            return self._answer(task_name, shareable, fl_ctx)
        except SiloscopeError as error:
            return refusal(error)
        except Exception:  # noqa: BLE001  (an exception here would end this process, and with it everybody's job)
            return failure()

    def _answer(self, task_name: str, task: Shareable, fl_ctx: FLContext) -> Shareable:
        reply = make_reply(ReturnCode.OK)
        if task_name == words.TASK_JOIN:
            self._part = self._open(fl_ctx)
            reply[words.ANNOUNCEMENT] = self._part.join(TrainingPlan.checked(json.loads(task[words.PLAN])))
        elif task_name == words.TASK_AGREE:
            reply[words.WRAPPED_KEYS] = self._joined().agree({str(k): bytes(v) for k, v in task[words.ROSTER].items()})
        elif task_name == words.TASK_ROUND:
            contribution = self._joined().round(_order(task, fl_ctx))
            reply[words.UPDATE] = contribution.message
            reply[words.REPORT] = contribution.report
        elif task_name == words.TASK_FINISH:
            reply[words.REPORT] = {"encoder_version": str(self._joined().finish(_last_sum(task)))}
        else:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        return reply

    def _open(self, fl_ctx: FLContext) -> Participation:
        if self._part is not None:
            self._part.close()
        return Participation(
            config.load(kit_of(fl_ctx)), job=str(fl_ctx.get_job_id()), folder=job_folder(fl_ctx) / "siloscope"
        )

    def _joined(self) -> Participation:
        if self._part is None:
            raise NotReady(
                "this silo has not joined the job (its process was restarted)",
                remedy="It takes part again in the next job.",
            )
        return self._part


def _order(task: Shareable, fl_ctx: FLContext) -> RoundOrder:
    wrapped = task.get(words.WRAPPED_KEYS) or {}
    own = wrapped.get(fl_ctx.get_identity_name())
    return RoundOrder(
        number=int(task[words.ROUND]),
        participants=[str(silo) for silo in task[words.PARTICIPANTS]],
        wrapped_key=bytes(own) if own is not None else None,
        last=_last_sum(task) if words.SUM in task else None,
    )


def _last_sum(task: Shareable) -> SumMessage:
    message: Any = task[words.SUM]
    return SumMessage(
        number=int(task[words.SUM_ROUND]), message=message, contributors=[str(s) for s in task[words.CONTRIBUTORS]]
    )
