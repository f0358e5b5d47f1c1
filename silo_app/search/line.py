"""The broker's line to one silo: queries of all askers gathered into messages, and a silo that fails left alone.

Each silo has its own line and threads, so one that hangs holds up no other.
"""

import logging
import math
import threading
import time
from collections import Counter

from silo_app.errors import MessageInvalid
from silo_app.search.breaker import Breaker
from silo_app.search.gather import Gatherer
from silo_app.search.gathering import Gathering, Reply
from silo_app.search.messages import SiloAnswer, SiloState
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.transport import SiloLate, SiloUnreachable, Transport

__all__ = ["Line", "reached"]

_log = logging.getLogger(__name__)
_PROBE_S = 1.0
_LARGEST = SiloAnswer.max_bytes + 64 * 1024
"""Bytes of a sealed reply, with the voucher of who sealed it."""
_SHARED = 0.75
"""Of a silo's places, what those who have some share equally; the rest is for askers who come anew."""


def reached(transport: Transport, silo: str, message: bytes, budget_s: float) -> tuple[SiloState, bytes]:
    """Send a message and return how the silo was found, and its reply; raises nothing."""
    try:
        return SiloState.ANSWERED, transport.ask(silo, message, max(0.001, budget_s))
    except SiloLate:
        return SiloState.LATE, b""
    except SiloUnreachable:
        return SiloState.UNREACHABLE, b""
    except Exception:  # noqa: BLE001  (one silo's failure must not be the query's)
        _log.exception("asking %s failed", silo)
        return SiloState.ERROR, b""


class Line:
    """Asks one silo; `in_flight` queries at most are with it or wait for it.

    Queries that may take longer than `usual_s` share no message and no thread with those that may not: a silo that is slow
    with some of them would be slow with all. No reply in half of that time is a failure (`Breaker`).
    """

    def __init__(self, silo: str, transport: Transport, *, in_flight: int, usual_s: float) -> None:
        self._silo = silo
        self._transport = transport
        self._in_flight = in_flight
        self._open: dict[Gathering, str] = {}
        self._lock = threading.Lock()
        self._usual_s = usual_s
        self.breaker = Breaker(time.monotonic, usual_s / 2)
        self._usual, self._patient = self._gatherer("ask"), self._gatherer("wait-for")

    def ask(self, query: Gathering, group: str) -> None:
        """Have the silo asked, or say at once why it is not: nobody waits for it now, or too many do."""
        if (state := self.breaker.left_alone) is not None:
            query.heard(self._silo, query.state(self._silo, state, "left-alone"))
            return
        gatherer = self._usual if query.budget_s <= self._usual_s else self._patient
        if not self._admitted(query, group) or not gatherer.put(query, group):
            self._heard(query, SiloState.BUSY, "too-many-in-flight")

    def probe(self) -> None:
        """Ask the silo whether it is there: an empty parcel, there and back."""
        state, reply = reached(self._transport, self._silo, pack(Parcel()), _PROBE_S)
        if state is SiloState.ANSWERED and not is_parcel(reply):
            state = SiloState.ERROR
        self.breaker.probed(state)

    def close(self) -> None:
        """Ask nothing more."""
        self._usual.close()
        self._patient.close()

    def _gatherer(self, name: str) -> Gatherer[Gathering]:
        return Gatherer(
            self._send,
            size_of=lambda query: len(query.frame),
            weight_of=lambda query: query.queries,
            name=f"{name}-{self._silo}",
            limit=2 * self._in_flight,
        )

    def _admitted(self, query: Gathering, group: str) -> bool:
        """Take a place, if there is one and it is this asker's to take: a part is always left to who comes next."""
        with self._lock:
            askers = Counter(self._open.values())
            share = math.ceil(_SHARED * self._in_flight / len(askers.keys() | {group}))
            if len(self._open) >= self._in_flight or askers[group] >= share:
                return False
            self._open[query] = group
            return True

    def _left(self, query: Gathering) -> None:
        with self._lock:
            self._open.pop(query, None)

    def _send(self, queries: list[Gathering]) -> None:
        current = [query for query in queries if not query.over]
        for query in set(queries) - set(current):
            self._left(query)
        if not current:
            return
        budget_s = max(query.left_s for query in current)
        state, replies = self._replies(current, budget_s)
        for query, reply in zip(current, replies, strict=True):
            if reply is None:
                self._heard(query, SiloState.ERROR if state is SiloState.ANSWERED else state, _code(state))
            else:
                self._replied(query, reply)
        self.breaker.asked(state, budget_s)

    def _replies(self, queries: list[Gathering], budget_s: float) -> tuple[SiloState, list[bytes | None]]:
        """Return how the silo was found, and its reply to each query, None where it has none.

        Also one query alone is a parcel, for some bytes more: what is left of its time travels with it.
        """
        contents = [
            Content(number, query.frame_for(self._silo), max(1, int(query.left_s * 1000)))
            for number, query in enumerate(queries)
        ]
        state, reply = reached(self._transport, self._silo, pack(Parcel(tuple(contents))), budget_s)
        if state is not SiloState.ANSWERED:
            return state, [None] * len(queries)
        try:
            found = {content.number: content.body for content in unpack(reply).contents}
        except MessageInvalid as error:
            _log.warning("%s sent what is no parcel: %s", self._silo, error.problem)
            return SiloState.ERROR, [None] * len(queries)
        return state, [found.get(number) for number in range(len(queries))]

    def _replied(self, query: Gathering, reply: bytes) -> None:
        """Hand on what came: sealed, so that only its size says anything, and of nonsense its asker will."""
        if not 0 < len(reply) <= _LARGEST:
            _log.warning("%s sent a reply of %d bytes, %d are allowed", self._silo, len(reply), _LARGEST)
            self._heard(query, SiloState.ERROR, "answer-invalid")
            return
        self._left(query)
        query.heard(self._silo, Reply(query.state(self._silo, SiloState.ANSWERED).report, reply))

    def _heard(self, query: Gathering, state: SiloState, code: str) -> None:
        self._left(query)
        query.heard(self._silo, query.state(self._silo, state, code))


def _code(state: SiloState) -> str:
    return {SiloState.LATE: "no-answer-in-time", SiloState.UNREACHABLE: ""}.get(state, "internal")
