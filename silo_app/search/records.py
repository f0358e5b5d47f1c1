"""What an answering silo's audit log says of a request and its reply: names and numbers, and nothing of an image."""

from silo_app.audit.log import Value
from silo_app.search.counts.messages import CountAnswer, CountRequest, told_words
from silo_app.search.envelope import AnyQuestion
from silo_app.search.messages import Refusal, SearchRequest, SiloAnswer
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest

__all__ = ["Event", "Reply", "record", "who_asks"]

Event = tuple[str, dict[str, Value]]
Reply = SiloAnswer | PrivateAnswer | CardsAnswer | CountAnswer | Refusal


def who_asks(request: AnyQuestion) -> dict[str, Value]:
    """Return who asks what for."""
    return {"query": request.query_id, "asker": request.asker, "user": request.user, "purpose": request.purpose}


def record(request: AnyQuestion | None, reply: Reply, took_us: int) -> Event:
    """Return what the audit log says of a request and its reply."""
    asked = _asked(request) | {"took_us": took_us}
    if isinstance(reply, Refusal):
        return "refusal", {**asked, "code": reply.code.value}
    if isinstance(reply, PrivateAnswer):
        return "scored", {**asked, "generation": reply.generation, "views": reply.views}
    if isinstance(reply, CountAnswer):
        return "count", {**asked, "generation": reply.generation, "told": told_words(reply)}
    released: list[str] = [hit.case for hit in reply.hits]
    if isinstance(reply, CardsAnswer):
        return "answer", {**asked, "released": released}
    if pictures := sum(bool(hit.thumbnail) for hit in reply.hits):
        asked["pictures"] = pictures
    return "answer", {**asked, "generation": reply.generation, "released": released}


def _asked(request: AnyQuestion | None) -> dict[str, Value]:
    """Return what the audit log says of a request, as far as it could be read."""
    if request is None:
        return {}
    asked = who_asks(request) | {"mode": _mode(request)}
    if isinstance(request, SearchRequest):
        asked["k"] = request.k
    if isinstance(request, CardsRequest):
        asked["scored"] = request.scored
    if isinstance(request, CountRequest):
        asked |= {"alike": request.alike, "similarity": request.similarity}
    if isinstance(request, SearchRequest | CountRequest) and request.filters:
        asked["filters"] = sorted(request.filters.fields)
    if isinstance(request, SearchRequest | PrivateRequest | CountRequest):
        asked["encoder"] = request.encoder_version
    return asked


def _mode(request: AnyQuestion) -> str:
    if isinstance(request, CountRequest):
        return "count"
    return "plain" if isinstance(request, SearchRequest) else "private"
