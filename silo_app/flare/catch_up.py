"""Beside the rounds: bring silos that missed one up to date, one closed round at a time, until they can take part again."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable

from silo_app.encoder.ledger import Ledger
from silo_app.flare import round_trip, words
from silo_app.flare.line import Line

__all__ = ["CatchUp"]

_DEADLINE_S = 7 * 86_400
_AGAIN_S = 3.0
"""How long after a refusal a silo is asked again; longer after each further one."""
_AGAIN_AT_MOST_S = 60.0


@dataclass
class CatchUp:
    """Sends each absent silo what it misses; one message at a time, of which the next rests on the answer."""

    line: Line
    ledger: Ledger
    introduction: dict[str, Any] = field(default_factory=dict)
    """The roster and the wrapped keys, for a silo that was away when the others agreed."""
    _out: dict[str, Task] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    """How often in a row a silo refused what it was sent."""
    codes: dict[str, str] = field(default_factory=dict)
    """Why each of these refused it last."""
    _not_before: dict[str, float] = field(default_factory=dict)

    def tend(self, target: int, busy: Collection[str] = ()) -> None:
        """See that every silo that is not `busy` with a round can take part in round `target`."""
        ready = self.line.roll.participants(target)
        silos = [silo for silo in self.line.roll.members if silo not in busy and silo not in ready]
        self.bring(silos, {words.BUNDLE_ROUND: target, **self.introduction})

    def bring(self, silos: Collection[str], more: Mapping[str, Any] | None = None) -> None:
        """Send the next closed round to each of `silos` that has answered what it was sent before."""
        for silo in silos:
            if not self.line.is_gone(silo) and not self._waits(silo):
                self._send(silo, dict(more or {}))

    @property
    def pending(self) -> int:
        """How many silos have been sent something that they have not answered."""
        return sum(self._waits(silo) and not self.line.is_gone(silo) for silo in self._out)

    def forgive(self) -> None:
        """Ask everybody again at once: what they refused is no more."""
        self.refusals.clear()
        self.codes.clear()
        self._not_before.clear()

    def close(self) -> None:
        """Withdraw what nobody has answered."""
        for task in self._out.values():
            self.line.cancel(task)
        self._out.clear()

    def _waits(self, silo: str) -> bool:
        task = self._out.get(silo)
        return (task is not None and task.completion_status is None) or time.monotonic() < self._not_before.get(silo, 0.0)

    def _send(self, silo: str, data: dict[str, Any]) -> None:
        position = self.line.roll.position(silo)
        if 0 <= position < self.ledger.next_round:
            data[words.CLOSED] = self.ledger.read(position).packed()

        def done(reply: Shareable | None) -> None:
            if reply is not None and reply.get_return_code() == ReturnCode.OK:
                self.refusals.pop(silo, None)
                return
            refused = self.refusals[silo] = self.refusals.get(silo, 0) + 1
            self._not_before[silo] = time.monotonic() + min(_AGAIN_S * refused, _AGAIN_AT_MOST_S)
            why = round_trip.why_refused(reply)
            self.codes[silo] = why["code"]
            self.line.tell(f"{silo} does not catch up: {why['code']}")

        self._out[silo] = self.line.post(words.TASK_CATCH_UP, data, silo, deadline_s=_DEADLINE_S, done=done)
