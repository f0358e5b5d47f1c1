"""A question to one silo after the other, through the broker: what is not gathered for all, it passes on as it is."""

from silo_app.search.ask import Asker
from silo_app.search.messages import Refusal, Relay, Relayed, SiloReport, SiloState
from silo_app.search.replies import STATE_OF_CODE
from silo_app.search.verified import BROKERS_WORD

__all__ = ["refused", "relay"]


def relay(asker: Asker, silo: str, frame: bytes, budget_ms: int) -> Relayed:
    """Have a signed question passed to one silo. Raises as `Asker.ask`; what only the silo itself may say is an error."""
    relayed = asker.exchange(Relay(silo=silo, budget_ms=budget_ms, frame=frame), Relayed, budget_ms)
    if relayed.silo != silo or relayed.state not in {SiloState.ANSWERED, *BROKERS_WORD}:
        return Relayed(silo=silo, state=SiloState.ERROR)
    return relayed


def refused(silo: str, refusal: Refusal, took_ms: float) -> SiloReport:
    """Return the report of a silo that refused."""
    return SiloReport(
        silo=silo,
        state=STATE_OF_CODE.get(refusal.code, SiloState.DENIED),
        code=refusal.code.value,
        public=refusal.public,
        took_ms=took_ms,
        encoder_version=refusal.encoder_version,
    )
