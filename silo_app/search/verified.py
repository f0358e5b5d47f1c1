"""What an asker believes of a result: what each silo sealed for this very query, and of the broker only who is missing."""

import logging
from collections.abc import Iterable, Sequence

from silo_app.errors import MessageInvalid, ProtocolError, SignatureInvalid, SiloscopeError
from silo_app.identity import Identity
from silo_app.search.envelope import open_reply
from silo_app.search.merge import ranking
from silo_app.search.messages import BundleReply, Refusal, SearchRequest, SearchResult, SiloAnswer, SiloReport, SiloState
from silo_app.search.replies import Said, reminded, said_by
from silo_app.search.thumbnails import require_thumbnails
from silo_app.search.wire import decode

__all__ = ["BROKERS_WORD", "invalid", "merged", "missing", "said_to", "verified", "verified_bundle"]

_log = logging.getLogger(__name__)

BROKERS_WORD = frozenset({SiloState.LATE, SiloState.BUSY, SiloState.UNREACHABLE, SiloState.ERROR})
"""What the broker may say for a silo: that it has no answer of it. That it cannot be stopped from."""


def verified(asker: Identity, request: SearchRequest, frame: bytes, result: SearchResult) -> SearchResult:
    """Return the result of the asker's signed request `frame`, with the silos' own words alone, merged here.

    A silo in whose name something else came is `invalid` and has no hits. Raises `MessageInvalid` for a result that
    names a silo twice.
    """
    return merged(request, [one for (one,) in said_to(asker, [request], frame, result, bundled=False).values()], result)


def verified_bundle(
    asker: Identity, requests: Sequence[SearchRequest], frame: bytes, result: SearchResult
) -> list[SearchResult]:
    """Return the result of each request of the asker's signed bundle `frame`, as `verified` does of one.

    What is wrong with a silo's reply as a whole is so for every request; what is wrong with its reply to one, for that one.
    """
    said = said_to(asker, requests, frame, result, bundled=True).values()
    return [merged(request, [one[place] for one in said], result) for place, request in enumerate(requests)]


def said_to(
    asker: Identity, requests: Sequence[SearchRequest], frame: bytes, result: SearchResult, *, bundled: bool
) -> dict[str, list[Said]]:
    """Return by silo what it said to each request of the signed frame, which is a bundle, or one request. Raises alike."""
    if bundled:
        replies = _replies(result)
        return {report.silo: _said_to_all(asker, requests, frame, report, content) for report, content in replies}
    (request,) = requests
    return {report.silo: [_said(asker, request, frame, report, content)] for report, content in _replies(result)}


def merged(request: SearchRequest, said: Sequence[Said], result: SearchResult) -> SearchResult:
    """Return the result of a request from what the silos said; `result` gives what the broker alone knows."""
    ranked = ranking((one.answer for one in said if one.answer is not None), request.k, own=request.asker)
    return SearchResult(
        query_id=request.query_id,
        encoder_version=request.encoder_version,
        k=request.k,
        hits=ranked.hits,
        elsewhere=ranked.elsewhere,
        silos=tuple(one.report for one in said),
        took_us=result.took_us,
        unheard=result.unheard,
    )


def _replies(result: SearchResult) -> list[tuple[SiloReport, bytes | None]]:
    """Return the broker's word for each silo, with what the silo sealed, if it did."""
    sealed = {one.silo: one.content for one in result.sealed}
    _require_distinct(report.silo for report in result.silos)
    _require_distinct(one.silo for one in result.sealed)
    return [(report, sealed.get(report.silo)) for report in result.silos]


def _said_to_all(
    asker: Identity, requests: Sequence[SearchRequest], frame: bytes, report: SiloReport, content: bytes | None
) -> list[Said]:
    if content is None:
        return [Said(_of_the_broker(report, asker.name))] * len(requests)
    try:
        message = open_reply(asker, report.silo, frame, content, BundleReply, Refusal)
        if isinstance(message, Refusal):
            return [said_by(report.silo, request, message, report.took_ms) for request in requests]
        if message.silo != report.silo or len(message.replies) != len(requests):
            raise MessageInvalid("it is of another silo or bundle", where="bundle", remedy="Look at that silo.")
    except ProtocolError as error:
        return [Said(invalid(report.silo, error, report.took_ms))] * len(requests)
    return [_said_to_one(report, request, reply) for request, reply in zip(requests, message.replies, strict=True)]


def _said_to_one(report: SiloReport, request: SearchRequest, reply: bytes) -> Said:
    if not reply:
        state = SiloReport(silo=report.silo, state=SiloState.ERROR, code="answer-too-large", took_ms=report.took_ms)
        return Said(state)
    try:
        return _read(report, request, decode(reply, SiloAnswer, Refusal))
    except ProtocolError as error:
        return Said(invalid(report.silo, error, report.took_ms))


def _read(report: SiloReport, request: SearchRequest, message: SiloAnswer | Refusal) -> Said:
    if isinstance(message, SiloAnswer):
        require_thumbnails(message)
    return said_by(report.silo, request, message, report.took_ms)


def invalid(silo: str, error: ProtocolError, took_ms: float = 0.0) -> SiloReport:
    """Return the report of a silo in whose name something came that nothing can be used of."""
    _log.warning("what came in the name of %s is not used: %s", silo, error.problem)
    code = SignatureInvalid.code if isinstance(error, SignatureInvalid) else "answer-invalid"
    return SiloReport(silo=silo, state=SiloState.INVALID, code=code, took_ms=took_ms)


def missing(silo: str, error: SiloscopeError, took_ms: float = 0.0, *, is_over: bool) -> SiloReport:
    """Return the report of a silo of which nothing came, since asking for it raised; `is_over` is whether its time was."""
    if isinstance(error, ProtocolError):
        return invalid(silo, error, took_ms)
    _log.warning("%s was not heard: %s", silo, error.problem)
    state, code = (SiloState.LATE, "no-answer-in-time") if is_over else (SiloState.UNREACHABLE, error.code)
    return SiloReport(silo=silo, state=state, code=code, took_ms=took_ms)


def _said(asker: Identity, request: SearchRequest, frame: bytes, report: SiloReport, content: bytes | None) -> Said:
    if content is None:
        return Said(_of_the_broker(report, asker.name))
    try:
        return _read(report, request, open_reply(asker, report.silo, frame, content, SiloAnswer, Refusal))
    except ProtocolError as error:
        return Said(invalid(report.silo, error, report.took_ms))


def _of_the_broker(report: SiloReport, own: str) -> SiloReport:
    """Return the broker's word for a silo that is missing; an answer or a refusal needs the silo's own."""
    if report.state in BROKERS_WORD:
        missing = SiloReport(silo=report.silo, state=report.state, code=report.code, took_ms=report.took_ms)
        return reminded(missing, own)
    return SiloReport(silo=report.silo, state=SiloState.INVALID, code=SignatureInvalid.code, took_ms=report.took_ms)


def _require_distinct(names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise MessageInvalid(
            "the broker names a silo twice",
            where="result",
            remedy="Nothing of it was used. Tell whoever runs the federation.",
        )
