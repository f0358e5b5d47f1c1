"""What a silo's message says to one request: an answer, a refusal, or nonsense, of which nothing is used."""

from dataclasses import dataclass

from silo_app.errors import MessageInvalid
from silo_app.policy.refusal import RefusalCode
from silo_app.search.messages import Refusal, SearchRequest, SiloAnswer, SiloReport, SiloState

__all__ = ["STATE_OF_CODE", "Said", "reminded", "said_by"]

_START_IT = "This silo's own index process does not answer: `silo serve` starts it."

STATE_OF_CODE = {
    RefusalCode.BUSY: SiloState.BUSY,
    RefusalCode.OTHER_ENCODER: SiloState.OTHER_ENCODER,
    RefusalCode.NOT_READY: SiloState.NOT_READY,
    RefusalCode.OTHER_KEY: SiloState.NOT_READY,
    RefusalCode.INDEX_DAMAGED: SiloState.ERROR,
    RefusalCode.INTERNAL: SiloState.ERROR,
}
"""Every other code is the silo's own decision: denied."""


@dataclass(frozen=True, slots=True)
class Said:
    """What one silo said to one query."""

    report: SiloReport
    answer: SiloAnswer | None = None


def reminded(report: SiloReport, own: str) -> SiloReport:
    """Return the report, and of the asker's own silo, if nobody reaches it, what to do: it is in the asker's hand."""
    if report.silo != own or report.state is not SiloState.UNREACHABLE:
        return report
    return report.model_copy(update={"public": _START_IT})


def said_by(silo: str, request: SearchRequest, message: SiloAnswer | Refusal, took_ms: float) -> Said:
    """Turn a silo's message into what it says. Raises `MessageInvalid` for anything but an answer to this request."""
    if isinstance(message, Refusal):
        _require(message.silo == silo, "it names another silo")
        _require(message.query_id in {"", request.query_id}, "it refuses another query")
        state = STATE_OF_CODE.get(message.code, SiloState.DENIED)
        return Said(
            SiloReport(
                silo=silo,
                state=state,
                code=message.code.value,
                public=message.public,
                took_ms=took_ms,
                encoder_version=message.encoder_version,
            )
        )
    _require_answer(silo, request, message)
    return Said(
        SiloReport(
            silo=silo,
            state=SiloState.ANSWERED,
            took_ms=took_ms,
            indexed=message.indexed,
            released=len(message.hits),
            withheld=message.withheld,
            generation=message.generation,
            encoder_version=message.encoder_version,
        ),
        message,
    )


def _require_answer(silo: str, request: SearchRequest, answer: SiloAnswer) -> None:
    _require(answer.silo == silo, "it names another silo")
    _require(answer.query_id == request.query_id, "it answers another query")
    _require(answer.encoder_version == request.encoder_version, "it is of another encoder")
    _require(len(answer.hits) <= min(request.k, answer.indexed), "it has more hits than asked for or indexed")
    _require(len({hit.case for hit in answer.hits}) == len(answer.hits), "it names a case twice")
    scores = [hit.score for hit in answer.hits]
    _require(scores == sorted(scores, reverse=True), "its hits are not in the order of their similarities")


def _require(holds: bool, problem: str) -> None:  # noqa: FBT001  (reads as the sentence that it is)
    if not holds:
        raise MessageInvalid(problem, where="answer", remedy="Nothing of the answer was used; look at that silo.")
