"""What an asker believes of a result: what each silo signed for this very query, and of the broker only who is missing."""

import logging
from collections.abc import Iterable

from silo_app.errors import MessageInvalid, ProtocolError, SignatureInvalid
from silo_app.identity import Trust
from silo_app.search.envelope import open_reply
from silo_app.search.gathering import Reply
from silo_app.search.merge import merge
from silo_app.search.messages import Refusal, SearchRequest, SearchResult, SiloAnswer, SiloReport, SiloState
from silo_app.search.replies import reply_of
from silo_app.search.thumbnails import require_thumbnails

__all__ = ["BROKERS_WORD", "invalid", "verified"]

_log = logging.getLogger(__name__)

BROKERS_WORD = frozenset({SiloState.LATE, SiloState.BUSY, SiloState.UNREACHABLE, SiloState.ERROR})
"""What the broker may say for a silo: that it has no answer of it. That it cannot be stopped from."""


def verified(trust: Trust, request: SearchRequest, frame: bytes, result: SearchResult) -> SearchResult:
    """Return the result of the signed request `frame`, with the silos' own words alone, merged here.

    A silo in whose name something else came is `invalid` and has no hits. Raises `MessageInvalid` for a result that
    names a silo twice.
    """
    signed = {one.silo: one.content for one in result.signed}
    _require_distinct(report.silo for report in result.silos)
    _require_distinct(one.silo for one in result.signed)
    replies = [_reply(trust, request, frame, report, signed.get(report.silo)) for report in result.silos]
    return result.model_copy(
        update={
            "hits": merge((reply.answer for reply in replies if reply.answer is not None), request.k),
            "silos": tuple(reply.report for reply in replies),
            "signed": (),
        }
    )


def invalid(silo: str, error: ProtocolError, took_ms: float = 0.0) -> SiloReport:
    """Return the report of a silo in whose name something came that nothing can be used of."""
    _log.warning("what came in the name of %s is not used: %s", silo, error.problem)
    code = SignatureInvalid.code if isinstance(error, SignatureInvalid) else "answer-invalid"
    return SiloReport(silo=silo, state=SiloState.INVALID, code=code, took_ms=took_ms)


def _reply(trust: Trust, request: SearchRequest, frame: bytes, report: SiloReport, content: bytes | None) -> Reply:
    if content is None:
        return Reply(_of_the_broker(report))
    try:
        message = open_reply(trust, report.silo, frame, content, SiloAnswer, Refusal)
        if isinstance(message, SiloAnswer):
            require_thumbnails(message)
        return reply_of(report.silo, request, message, report.took_ms, content)
    except ProtocolError as error:
        return Reply(invalid(report.silo, error, report.took_ms))


def _of_the_broker(report: SiloReport) -> SiloReport:
    """Return the broker's word for a silo that is missing; an answer or a refusal needs the silo's own."""
    if report.state in BROKERS_WORD:
        return SiloReport(silo=report.silo, state=report.state, code=report.code, took_ms=report.took_ms)
    return SiloReport(silo=report.silo, state=SiloState.INVALID, code=SignatureInvalid.code, took_ms=report.took_ms)


def _require_distinct(names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise MessageInvalid(
            "the broker names a silo twice",
            where="result",
            remedy="Nothing of it was used. Tell whoever runs the federation.",
        )
