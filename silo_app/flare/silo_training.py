"""The silo's side of a training job: each task is one call of `Participation`, and every error becomes a reply.

The trainer is a child process of this one, so a crash of training (out of memory, a broken driver) is an error result of
one round. NVFlare ends a whole job when one site's job process dies; this process does nothing that kills it.
"""

import json
import shutil
from collections.abc import Callable
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from silo_app import config
from silo_app.encoder import exchange_folder
from silo_app.encoder.ledger import ClosedRound
from silo_app.encoder.participation import Participation, RoundOrder
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import MessageInvalid, NotReady, SiloscopeError
from silo_app.flare import tracking, words
from silo_app.flare.site import failure, job_folder, kit_of, refusal, unknown_task


class SiloTraining(Executor):  # type: ignore[misc]
    """`jobs/train` at a silo."""

    def __init__(self) -> None:
        super().__init__()
        self._part: Participation | None = None
        self._tasks: dict[str, Callable[[Shareable, Shareable, FLContext], None]] = {
            words.TASK_RESTORE: self._restore,
            words.TASK_ADMIT: self._admit,
            words.TASK_ENTER: self._enter,
            words.TASK_JOIN: self._join,
            words.TASK_AGREE: self._agree,
            words.TASK_ROUND: self._round,
            words.TASK_SIGN: self._sign,
            words.TASK_REVEAL: self._reveal,
            words.TASK_CATCH_UP: self._catch_up,
            words.TASK_FINISH: self._finish,
        }

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """End the trainer with the job, whatever ends the job, and leave no weights in the job's folder."""
        if event_type in {EventType.END_RUN, EventType.ABORT_TASK} and self._part is not None:
            self._part.close()
            if event_type == EventType.END_RUN:
                self._part = None
                shutil.rmtree(job_folder(fl_ctx) / exchange_folder.NAME, ignore_errors=True)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task."""
        del abort_signal  # ABORT_TASK ends the trainer, which ends the call that waits for it
        if task_name not in self._tasks:
            return unknown_task(task_name)
        reply = make_reply(ReturnCode.OK)
        try:
            self._tasks[task_name](shareable, reply, fl_ctx)
        except SiloscopeError as error:
            reply = refusal(error)
        except Exception:  # noqa: BLE001  (an exception here would end this process, and with it everybody's job)
            reply = failure()
        if self._part is not None:
            reply[words.NEXT_ROUND] = self._part.next_round
            tracking.send(self, self._part.take_shared(), fl_ctx)
        return reply

    def _restore(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        self._part = self._open(fl_ctx)
        plan, jobs = _plan(task), [str(job) for job in task[words.JOBS]]
        if (entry := self._part.ask_entry(plan, jobs)) is None:
            self._part.restore(plan, jobs)
        else:
            reply[words.ENTRY] = entry

    def _admit(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del fl_ctx
        reply[words.ADMISSIONS] = self._joined().admit(_bytes(task[words.ENTRIES]))

    def _enter(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del reply
        own = _bytes(task[words.ADMISSIONS]).get(fl_ctx.get_identity_name())
        if own is None:
            raise NotReady("nobody admitted this silo to the job", remedy="It takes part in the next job.")
        self._joined().enter(own)

    def _join(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        plan = _plan(task)
        if plan.resume is None:
            self._part = self._open(fl_ctx)
        reply[words.ANNOUNCEMENT] = self._joined().join(plan)

    def _agree(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del fl_ctx
        number = int(task[words.BUNDLE_ROUND])
        reply[words.WRAPPED_KEYS], bundle = self._joined().agree(_bytes(task[words.ROSTER]), number)
        reply[words.BUNDLE_ROUND], reply[words.BUNDLE] = number, bundle

    def _round(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        training_round = task[words.TRAINING_ROUND]
        order = RoundOrder(
            number=int(task[words.ROUND]),
            content=str(task[words.CONTENT]),
            training_round=None if training_round is None else int(training_round),
            participants={str(silo): b"" for silo in task[words.PARTICIPANTS]} | _bytes(task[words.BUNDLES]),
            wrapped_key=_own(task, fl_ctx),
            last=_closed(task),
        )
        # bytes, because NVFlare lets the server fetch arrays, and ends the server's process when a silo died before that
        reply[words.UPDATE] = self._joined().round(order).tobytes()
        reply[words.STOP] = self._joined().exhausted

    def _sign(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del fl_ctx
        survivors = [str(silo) for silo in task[words.SURVIVORS]]
        reply[words.SIGNATURE] = self._joined().sign(int(task[words.ROUND]), survivors)

    def _reveal(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del fl_ctx
        reply[words.REVEAL] = self._joined().reveal(int(task[words.ROUND]), _bytes(task[words.SIGNATURES]))
        self._share(task, reply)

    def _catch_up(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        part = self._joined()
        if words.ROSTER in task:
            part.introduce(_bytes(task[words.ROSTER]), _own(task, fl_ctx))
        if (closed := _closed(task)) is not None:
            part.close_round(closed)
        if words.BUNDLE_ROUND in task and part.next_round >= int(task[words.BUNDLE_ROUND]) - 1:
            self._share(task, reply)

    def _finish(self, task: Shareable, reply: Shareable, fl_ctx: FLContext) -> None:
        del fl_ctx
        closed = _closed(task)
        if closed is None:
            raise NotReady("the job has no closed round", remedy="Submit it again.")
        reply[words.REPORT] = {"encoder_version": str(self._joined().finish(closed))}

    def _share(self, task: Shareable, reply: Shareable) -> None:
        number = int(task[words.BUNDLE_ROUND])
        reply[words.BUNDLE], reply[words.BUNDLE_ROUND] = self._joined().share(number), number

    def _open(self, fl_ctx: FLContext) -> Participation:
        if self._part is not None:
            self._part.close()
        home, folder = config.load(kit_of(fl_ctx)), job_folder(fl_ctx) / exchange_folder.NAME
        exchange_folder.remove_left_over(home.kit, home.root / "jobs")
        return Participation(home, job=str(fl_ctx.get_job_id()), folder=folder)

    def _joined(self) -> Participation:
        if self._part is None:
            raise NotReady(
                "this silo has not joined the job (its process was restarted)",
                remedy="It takes part again in the next job.",
            )
        return self._part


def _plan(task: Shareable) -> TrainingPlan:
    return TrainingPlan.checked(json.loads(task[words.PLAN]))


def _bytes(content: Any) -> dict[str, bytes]:
    """Take what silos sent, by silo, out of a task. Raises `MessageInvalid`."""
    if not isinstance(content, dict) or not all(isinstance(value, bytes) for value in content.values()):
        raise MessageInvalid("a task holds something else than bytes", remedy="Compare the versions of siloscope.")
    return {str(silo): value for silo, value in content.items()}


def _own(task: Shareable, fl_ctx: FLContext) -> bytes | None:
    return _bytes(task.get(words.WRAPPED_KEYS) or {}).get(fl_ctx.get_identity_name())


def _closed(task: Shareable) -> ClosedRound | None:
    packed = task.get(words.CLOSED)
    return None if packed is None else ClosedRound.unpacked(packed)
