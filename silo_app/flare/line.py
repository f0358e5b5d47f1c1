"""The server's line to the silos of a training job: what knows NVFlare's controller, who is gone, and who is where."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nvflare.apis.controller_spec import Task, TaskCompletionStatus
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from silo_app.aggregation.vetting import Vetting
from silo_app.encoder.job_record import UNOPENED, Quarantined
from silo_app.encoder.ledger import Ledger
from silo_app.encoder.roll import Roll
from silo_app.errors import ProtocolError, UpdateRefused
from silo_app.flare import round_trip, words
from silo_app.flare.presence import Presence
from silo_app.flare.round_trip import Answers, Patience

__all__ = ["Line", "octets", "quarantined", "take_back"]


@dataclass(frozen=True)
class Line:
    """How a job's server part talks to its silos."""

    controller: Controller
    fl_ctx: FLContext
    abort: Signal
    roll: Roll
    presence: Presence
    vetting: Vetting

    @property
    def job(self) -> str:
        """The job's id."""
        return str(self.fl_ctx.get_job_id())

    def is_gone(self, silo: str) -> bool:
        """Return whether nobody should wait for the silo."""
        return self.presence.is_gone(silo)

    def is_absent(self, silo: str) -> bool:
        """Return whether the silo's process was not there when last asked: sooner known, and less sure."""
        return self.presence.is_absent(silo)

    @property
    def aborted(self) -> bool:
        """Whether somebody ended the job."""
        return bool(self.abort.triggered)

    def ask(
        self,
        name: str,
        data: Mapping[str, object],
        silos: Iterable[str],
        patience: Patience,
        *,
        take: Callable[[str, Shareable], None] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Answers:
        """Send one task to many silos and wait (`round_trip.ask`); note where each says that it is."""
        return round_trip.ask(
            self.controller,
            name,
            _shareable(data),
            silos,
            patience,
            self.fl_ctx,
            self.abort,
            self.presence,
            take,
            meanwhile,
            self.note,
        )

    def post(
        self,
        name: str,
        data: Mapping[str, object],
        silo: str,
        *,
        deadline_s: float,
        done: Callable[[Shareable | None], None],
    ) -> Task:
        """Send one task to one silo and wait for nothing."""

        def received(reply: Shareable | None) -> None:
            if reply is not None:
                self.note(silo, reply)
            done(reply)

        return round_trip.post(
            self.controller, name, _shareable(data), silo, self.fl_ctx, deadline_s=deadline_s, done=received
        )

    def cancel(self, task: Task) -> None:
        """Withdraw a task that was posted."""
        if task.completion_status is None:
            self.controller.cancel_task(task, completion_status=TaskCompletionStatus.CANCELLED)

    def note(self, silo: str, reply: Shareable) -> None:
        """Take note of the silo's next round and of a bundle that came with a reply, if the others can use it."""
        position, number, bundle = (
            reply.get(words.NEXT_ROUND),
            reply.get(words.BUNDLE_ROUND),
            reply.get(words.BUNDLE),
        )
        self.roll.heard(silo, position if isinstance(position, int) else None)
        if self.roll.masked and isinstance(number, int) and isinstance(bundle, bytes):
            try:
                self.vetting.bundle(silo, number, bundle)
            except ProtocolError as error:  # no bundle, no place in the round: the others would all refuse it
                self.tell(f"{silo}: its masks for exchange {number} are not relayed: {error.problem}")
            else:
                self.roll.heard(silo, None, (number, bundle))

    def tell(self, text: str) -> None:
        """Write a line into the job's log."""
        self.controller.log_info(self.fl_ctx, text)


def take_back(line: Line, ledger: Ledger, number: int) -> None:
    """Void an exchange whose sum no silo can open, and say so as `console.records_told` reads it."""
    ledger.void(number)
    line.tell(f"exchange {number}: {UNOPENED}")


def quarantined(answers: Answers, step: str) -> dict[str, Quarantined]:
    """Return who did not do a step, and why."""
    refused = {silo: Quarantined(code=why["code"], public=why["public"], step=step) for silo, why in answers.refused.items()}
    return refused | {silo: Quarantined.absence(why, step) for silo, why in answers.missing.items()}


def octets(reply: Shareable, word: str, silo: str) -> bytes:
    """Take bytes out of a silo's reply. Raises `UpdateRefused` if it has none there."""
    given = reply.pop(word, None)
    if not isinstance(given, bytes):
        raise UpdateRefused(
            f"its reply has {type(given).__name__} instead of bytes as {word}",
            where=silo,
            remedy="Install the version of siloscope that the other silos have.",
        )
    return given


def _shareable(data: Mapping[str, object]) -> Shareable:
    task = Shareable()
    task.update(data)
    return task
