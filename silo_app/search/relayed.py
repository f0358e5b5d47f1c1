"""A question to one silo after the other, through the broker: what is not gathered for all, it passes on as it is."""

import time
from collections.abc import Callable
from typing import TypeVar

from silo_app.errors import BrokerUnreachable, MessageInvalid, NotReady, ProtocolError
from silo_app.policy.refusal import RefusalCode
from silo_app.search.ask import Asker
from silo_app.search.envelope import AnyQuestion, conceal, keyed, keys_for, open_reply
from silo_app.search.meeting import meet
from silo_app.search.messages import Message, Refusal, Relay, Relayed, SiloReport, Silos, SiloState, Who
from silo_app.search.replies import STATE_OF_CODE, reminded
from silo_app.search.verified import BROKERS_WORD, invalid, missing

__all__ = ["ask_silo", "known_silos"]

_M = TypeVar("_M", bound=Message)


def known_silos(asker: Asker, budget_ms: int) -> tuple[str, ...]:
    """Return the silos' names, and take note of their keys: so none has to be asked twice. Raises as `Asker.exchange`."""
    told = asker.exchange(Who(), Silos, budget_ms)
    meet(asker.identity, told.vouchers)
    return told.silos


def ask_silo(
    asker: Asker, silo: str, request: AnyQuestion, kind: type[_M], require: Callable[[_M], None]
) -> tuple[SiloReport, _M | None]:
    """Ask one silo what it alone reads, once more if its keys were not known, or are others by now.

    Returns what is said of the silo, and its answer, if it gave one that `require` raises no `ProtocolError` for. Raises
    nothing: what fails on the way to one silo costs its answer, and no other's.
    """
    report, answer = _asked(asker, silo, request, kind, require)
    return _asked(asker, silo, request, kind, require) if report.code == RefusalCode.OTHER_KEY.value else (report, answer)


def _asked(
    asker: Asker, silo: str, request: AnyQuestion, kind: type[_M], require: Callable[[_M], None]
) -> tuple[SiloReport, _M | None]:
    signed, key = conceal(asker.identity, request)
    frame = keyed(signed, keys_for(asker.identity, signed, key, [silo]).get(silo))
    start = time.monotonic()
    try:
        relayed = _relayed(asker, silo, frame, request.budget_ms)
    except (NotReady, BrokerUnreachable, MessageInvalid) as error:
        took_ms = round((time.monotonic() - start) * 1000, 3)
        return missing(silo, error, took_ms, is_over=took_ms >= request.budget_ms), None
    if relayed.state is not SiloState.ANSWERED:
        report = SiloReport(silo=silo, state=relayed.state, took_ms=relayed.took_ms)
        return reminded(report, asker.identity.name), None
    try:
        answer = open_reply(asker.identity, silo, signed, relayed.content, kind, Refusal)
        if isinstance(answer, Refusal):
            _require_of(silo, request, answer)
            return _refused(silo, answer, relayed.took_ms), None
        require(answer)
    except ProtocolError as error:
        return invalid(silo, error, relayed.took_ms), None
    return SiloReport(silo=silo, state=SiloState.ANSWERED, took_ms=relayed.took_ms), answer


def _relayed(asker: Asker, silo: str, frame: bytes, budget_ms: int) -> Relayed:
    """Have a question passed to one silo; what only the silo itself may say is an error."""
    relayed = asker.exchange(Relay(silo=silo, budget_ms=budget_ms, frame=frame), Relayed, budget_ms)
    if relayed.silo != silo or relayed.state not in {SiloState.ANSWERED, *BROKERS_WORD}:
        return Relayed(silo=silo, state=SiloState.ERROR)
    return relayed


def _require_of(silo: str, request: AnyQuestion, refusal: Refusal) -> None:
    if refusal.silo != silo or refusal.query_id not in {"", request.query_id}:
        raise MessageInvalid("it refuses another question", where=silo, remedy="Nothing of it was used.")


def _refused(silo: str, refusal: Refusal, took_ms: float) -> SiloReport:
    return SiloReport(
        silo=silo,
        state=STATE_OF_CODE.get(refusal.code, SiloState.DENIED),
        code=refusal.code.value,
        public=refusal.public,
        took_ms=took_ms,
        encoder_version=refusal.encoder_version,
    )
