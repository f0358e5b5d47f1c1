"""A gateway's way to the broker: the hospital's queries gathered into parcels, each waiting for its own reply."""

import itertools
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from silo_app.errors import BrokerUnreachable, MessageInvalid
from silo_app.search.gather import Gatherer
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack

__all__ = ["LARGEST_GATHERED", "Courier"]

_log = logging.getLogger(__name__)

LARGEST_GATHERED = 256 * 1024
"""Bytes; a larger frame, such as a private query, travels alone."""
_REMEDY = "Ask again; if it stays so, tell whoever runs the federation."


@dataclass(eq=False)
class _Letter:
    number: int
    frame: bytes
    deadline: float
    reply: Future[bytes] = field(default_factory=Future)
    sent: bool = False

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()


class Courier:
    """Asks the broker from many threads; `send` passes a message within seconds, and raises `BrokerUnreachable`."""

    def __init__(self, send: Callable[[bytes, float], bytes]) -> None:
        self._send_message = send
        self._session = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._gatherer: Gatherer[_Letter] = Gatherer(
            self._send, size_of=lambda letter: 0 if letter.sent else len(letter.frame), name="courier"
        )

    def ask(self, frame: bytes, timeout_s: float) -> bytes:
        """Return the broker's reply. Raises `BrokerUnreachable`: no broker, too many queries, or no reply in time."""
        if len(frame) > LARGEST_GATHERED:
            return self._send_message(frame, timeout_s)
        letter = _Letter(next(self._numbers), frame, time.monotonic() + timeout_s)
        if not self._gatherer.put(letter):
            raise BrokerUnreachable("this silo asks more queries than can be sent", remedy="Ask fewer at a time.")
        try:
            return letter.reply.result(timeout=timeout_s)
        except TimeoutError:
            letter.reply.cancel()
            raise BrokerUnreachable(f"the broker gave no reply within {timeout_s:g} s", remedy=_REMEDY) from None

    def close(self) -> None:
        """Send nothing more."""
        self._gatherer.close()

    def _send(self, letters: list[_Letter]) -> None:
        waiting = [letter for letter in letters if not letter.reply.done() and letter.left_s > 0]
        if not waiting:
            return
        try:
            replies = self._replies(waiting)
        except Exception as error:  # noqa: BLE001  (whoever waits must hear of it, whatever it is)
            for letter in waiting:
                _settle(letter, error)
            return
        for letter in waiting:
            if letter.number in replies:
                _settle(letter, replies[letter.number])
            else:
                letter.sent = True
                self._gatherer.again(letter)

    def _replies(self, letters: list[_Letter]) -> dict[int, bytes]:
        contents = tuple(
            Content(letter.number, letter.frame, max(1, min(60_000, int(letter.left_s * 1000))))
            for letter in letters
            if not letter.sent
        )
        parcel = Parcel(contents, tuple(letter.number for letter in letters if letter.sent), self._session)
        reply = self._send_message(pack(parcel), max(letter.left_s for letter in letters))
        if not is_parcel(reply):
            raise MessageInvalid("the broker sent what is no parcel", where="reply", remedy=_REMEDY)
        return {content.number: content.body for content in unpack(reply).contents}


def _settle(letter: _Letter, outcome: bytes | Exception) -> None:
    if letter.reply.set_running_or_notify_cancel():
        if isinstance(outcome, bytes):
            letter.reply.set_result(outcome)
        else:
            letter.reply.set_exception(outcome)
