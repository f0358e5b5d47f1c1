"""One task to many silos: wait for those that live, as long as the deadline allows, and name the others.

NVFlare's own wait knows only "so many responses" and a timeout. A federation of hospitals needs a third rule: once
enough silos have answered, the others get a while longer, and one whose process is known to be gone gets none.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from silo_app.errors import SiloscopeError, UpdateRefused
from silo_app.flare import words
from silo_app.flare.presence import LONG, MISSES, Presence

_POLL_S = 0.05


@dataclass(frozen=True)
class Patience:
    """How long a task may take: `deadline_s` in all, `straggler_s` after `enough` silos have answered.

    For the silos in `unreliable` (they missed the last task) nobody waits once `enough` have answered; what they send in
    time still counts. A silo that is not reached is given up after `unreached` questions (`presence`); with `held` the
    `straggler_s` of all begin anew when it is reached again, or given up: what it missed is then what it has yet to do.
    """

    enough: int
    deadline_s: float
    straggler_s: float
    unreliable: frozenset[str] = frozenset()
    unreached: int = MISSES
    held: bool = False


@dataclass
class Answers:
    """Who answered and who did not: `refused` maps silo to {"code", "public"}, `missing` silo to why."""

    accepted: dict[str, Shareable] = field(default_factory=dict)
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def ask(
    controller: Controller,
    name: str,
    data: Shareable,
    silos: Iterable[str],
    patience: Patience,
    fl_ctx: FLContext,
    abort: Signal,
    presence: Presence,
    take: Callable[[str, Shareable], None] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    heard: Callable[[str, Shareable], None] | None = None,
) -> Answers:
    """Send a task to `silos` and collect what comes back; `take` may consume a reply as it arrives.

    Nobody waits for a silo of which `presence` or NVFlare says that it is gone: a job's process never returns. Who did not
    answer is named "silent" if it is there and says nothing, "gone" if that holds at the end, or if it was not there when
    last asked, else "late". `meanwhile` is called again and again while others are waited for; `heard` sees every reply
    first, refusals too.

    A reply for which `take` raises `SiloscopeError` counts as refused by us, under that error's code; one for which it
    raises anything else as refused too, and the log has the traceback.
    """
    targets = sorted(silos)
    answers = Answers()

    def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
        silo, reply = client_task.client.name, client_task.result
        client_task.result = None  # an update is tens of megabytes: NVFlare would keep each until the task is over
        if heard is not None and reply is not None:
            heard(silo, reply)
        if reply is None or reply.get_return_code() != ReturnCode.OK:
            answers.refused[silo] = why_refused(reply)
            return
        refusal = _refusal(controller, fl_ctx, take, silo, reply)
        if refusal is None:
            answers.accepted[silo] = reply
        else:
            answers.refused[silo] = refusal

    task = Task(name=name, data=data, timeout=int(patience.deadline_s) + 30, result_received_cb=received)
    controller.broadcast(task=task, fl_ctx=fl_ctx, targets=targets, min_responses=len(targets))

    def gone(silo: str) -> bool:
        return bool(controller.get_client_disconnect_time(silo)) or presence.is_gone(silo, unreached=patience.unreached)

    _wait(controller, task, targets, answers, patience, abort, gone, presence.is_absent, meanwhile)
    for silo in targets:
        if silo not in answers.accepted and silo not in answers.refused:
            answers.missing[silo] = _why_missing(silo, gone, presence)
    return answers


def _why_missing(silo: str, gone: Callable[[str], bool], presence: Presence) -> str:
    if presence.is_silent(silo):
        return "silent"
    return "gone" if gone(silo) or presence.is_absent(silo) else "late"


def ask_each(
    controller: Controller,
    name: str,
    data: Shareable,
    silos: Collection[str],
    deadline_s: float,
    fl_ctx: FLContext,
    abort: Signal,
    take: Callable[[str, Shareable], None] | None = None,
) -> Answers:
    """Send a task whose answer is all that a silo does in the job, and wait as long as any silo works on it (`ask`)."""
    patience = Patience(enough=len(silos), deadline_s=deadline_s, straggler_s=0, unreached=LONG)
    with Presence.of(fl_ctx, silos) as presence:
        return ask(controller, name, data, silos, patience, fl_ctx, abort, presence, take)


def _refusal(
    controller: Controller, fl_ctx: FLContext, take: Callable[[str, Shareable], None] | None, silo: str, reply: Shareable
) -> dict[str, str] | None:
    """Let `take` have a reply; return why it did not want it."""
    if take is None:
        return None
    try:
        take(silo, reply)
    except SiloscopeError as error:
        controller.log_error(fl_ctx, f"{silo}: {error.code}: {error}")
        return {"code": error.code, "public": error.public}
    except Exception:  # noqa: BLE001  (what one silo sends must not end the task for the others)
        controller.log_exception(fl_ctx, f"{silo}: its reply cannot be used")
        return {"code": UpdateRefused.code, "public": UpdateRefused.public}
    return None


def _wait(
    controller: Controller,
    task: Task,
    targets: list[str],
    answers: Answers,
    patience: Patience,
    abort: Signal,
    gone: Callable[[str], bool],
    absent: Callable[[str], bool],
    meanwhile: Callable[[], None],
) -> None:
    start = time.monotonic()
    enough_since: float | None = None
    while task.completion_status is None and not abort.triggered:
        now = time.monotonic()
        waiting = [t for t in targets if t not in answers.accepted and t not in answers.refused]
        living = [t for t in waiting if not gone(t)]
        if len(answers.accepted) >= patience.enough:
            living = [t for t in living if t not in patience.unreliable]
            if enough_since is None or (patience.held and any(map(absent, living))):
                enough_since = now
        out_of_time = now - start > patience.deadline_s
        patience_spent = enough_since is not None and now - enough_since > patience.straggler_s
        if not living or out_of_time or patience_spent:
            controller.cancel_task(task, completion_status=TaskCompletionStatus.CANCELLED)
            return
        meanwhile()
        time.sleep(_POLL_S)


def post(
    controller: Controller,
    name: str,
    data: Shareable,
    silo: str,
    fl_ctx: FLContext,
    *,
    deadline_s: float,
    done: Callable[[Shareable | None], None],
) -> Task:
    """Send a task to one silo and wait for nothing; `done` gets the reply when it comes. It can be cancelled."""

    def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
        del fl_ctx
        reply, client_task.result = client_task.result, None
        done(reply)

    task = Task(name=name, data=data, timeout=int(deadline_s), result_received_cb=received)
    controller.broadcast(task=task, fl_ctx=fl_ctx, targets=[silo], min_responses=1)
    return task


def why_refused(reply: Shareable | None) -> dict[str, str]:
    """Return code and public sentence of a silo's refusal, bounded; what else it says is not believed."""
    given = reply.get(words.REFUSAL) if reply is not None else None
    if isinstance(given, dict) and isinstance(given.get("code"), str) and isinstance(given.get("public"), str):
        return {"code": given["code"][:64], "public": given["public"][:200]}
    return {"code": "process-failed", "public": "The silo's job process gave no reason."}
