"""Where the broker takes parcels of queries: each reply goes back when it is there, with the next parcel at the latest.

A parcel is answered when all that its sender waits for is done, or shortly after the first. What is not done by then is
asked for again with the next parcel: so a query that has to wait for a silo holds up none that came with it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from silo_app.errors import BrokerUnreachable, MessageInvalid
from silo_app.search.messages import ErrorMessage
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.wire import encode

__all__ = ["Desk"]

Start = Callable[[bytes, Callable[[bytes], None], str], None]
"""Begins to serve a frame of an asker, and hands the reply to the second argument."""

_COMPANY_S = 0.01
"""How long a reply that is there waits for those that came with it."""
_HOLD_S = 0.1
"""How long a parcel waits for a first reply."""
_KEPT_S = 90.0
"""How long a reply is kept for a sender that does not ask for it: longer than any budget."""
_MOST_OPEN = 1024
_MOST_BYTES = 16 * 1024 * 1024


@dataclass
class _Slot:
    until: float
    reply: bytes | None = None


@dataclass
class _Session:
    """What one process of one asker has at the broker."""

    change: threading.Condition = field(default_factory=threading.Condition)
    slots: dict[int, _Slot] = field(default_factory=dict)

    def put(self, number: int, reply: bytes) -> None:
        with self.change:
            if (slot := self.slots.get(number)) is not None:
                slot.reply = reply
                self.change.notify_all()

    def collect(self, numbers: list[int]) -> list[Content]:
        """Wait a moment for the replies to these numbers, and hand out those that are there."""
        hold = time.monotonic() + _HOLD_S
        company = 0.0
        with self.change:
            while (missing := sum(self._reply(number) is None for number in numbers)) > 0:
                now = time.monotonic()
                if missing < len(numbers):
                    company = company or now + _COMPANY_S
                end = company or hold
                if now >= end:
                    break
                self.change.wait(end - now)
            return self._handed_out(numbers)

    def _reply(self, number: int) -> bytes | None:
        slot = self.slots.get(number)
        return _LOST if slot is None else slot.reply

    def _handed_out(self, numbers: list[int]) -> list[Content]:
        handed: list[Content] = []
        room = _MOST_BYTES
        for number in numbers:
            reply = self._reply(number)
            if reply is None or (handed and len(reply) > room):
                continue
            room -= len(reply)
            handed.append(Content(number, reply))
            self.slots.pop(number, None)
        return handed


class Desk:
    """Serves parcels and single frames of all askers, each from a thread of the caller's."""

    def __init__(self, start: Start, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._clock = clock
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._lock = threading.Lock()

    def serve(self, asker: str, frame: bytes) -> bytes:
        """Return the reply to a frame, or a parcel with those that are there; raises nothing."""
        if not is_parcel(frame):
            return self._single(asker, frame)
        try:
            parcel = unpack(frame)
        except MessageInvalid as error:
            return encode(ErrorMessage(code=error.code, public=error.public))
        session = self._session(asker, parcel.session)
        for content in parcel.contents:
            self._begin(asker, session, content)
        numbers = [content.number for content in parcel.contents] + list(parcel.waiting)
        return pack(Parcel(tuple(session.collect(numbers))))

    def _begin(self, asker: str, session: _Session, content: Content) -> None:
        with session.change:
            full = len(session.slots) >= _MOST_OPEN
            session.slots[content.number] = _Slot(self._clock() + _KEPT_S, _BUSY if full else None)
        if not full:
            self._start(content.body, lambda reply: session.put(content.number, reply), asker)

    def _single(self, asker: str, frame: bytes) -> bytes:
        session = _Session()
        session.slots[0] = _Slot(self._clock() + _KEPT_S)
        self._start(frame, lambda reply: session.put(0, reply), asker)
        end = self._clock() + _KEPT_S
        while self._clock() < end:
            if replies := session.collect([0]):
                return replies[0].body
        return _LOST

    def _session(self, asker: str, name: str) -> _Session:
        now = self._clock()
        with self._lock:
            for key, old in list(self._sessions.items()):
                with old.change:
                    for number in [number for number, slot in old.slots.items() if slot.until < now]:
                        del old.slots[number]
                    if not old.slots and key != (asker, name):
                        del self._sessions[key]
            return self._sessions.setdefault((asker, name), _Session())


def _error(problem: str) -> bytes:
    error = BrokerUnreachable(problem, remedy="Ask again.")
    return encode(ErrorMessage(code=error.code, public=error.public, problem=error.problem, remedy=error.remedy))


_LOST = _error("the broker does not know of this query: it was started again, or has forgotten it")
_BUSY = _error("this silo has more queries in flight than the broker keeps")
