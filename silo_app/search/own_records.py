"""What an asking silo's audit log says: that a question is about to leave, and then what came of it.

The first record (`asking`) is written before anything leaves, so that neither who relays the question nor a crash keeps it
out of the log. The second has the result (`asked`), or the code of what was raised instead (`asking-failed`). A question has
the same id here as at whoever answers it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from silo_app.audit.log import AuditLog, Value
from silo_app.errors import SiloscopeError
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import SearchRequest, SearchResult

__all__ = ["Fields", "asked", "asks", "asks_with", "begun"]

Fields = dict[str, Value]


def asks(query_id: str, *, mode: str, user: str, purpose: str, encoder: str) -> Fields:
    """Return what is said of a question before it leaves."""
    return {"asked_query": query_id, "mode": mode, "user": user, "purpose": purpose, "encoder": encoder}


def asks_with(question: SearchRequest | CountRequest, *, mode: str) -> Fields:
    """Return what is said of a question that all silos get as it is."""
    return asks(question.query_id, mode=mode, user=question.user, purpose=question.purpose, encoder=question.encoder_version)


def asked(asking: Fields, result: SearchResult) -> Fields:
    """Return what is said of a search with its result."""
    said: Fields = {
        **asking,
        "k": result.k,
        "silos": [f"{report.silo}:{report.state.value}" for report in result.silos],
        "received": [f"{hit.silo}:{hit.case}" for hit in result.hits],
        "withheld": [f"{report.silo}:{report.withheld}" for report in result.silos if report.withheld],
    }
    return said | ({"unheard": result.unheard} if result.unheard else {})


@contextmanager
def begun(audit: AuditLog, asking: Sequence[Fields]) -> Iterator[None]:
    """Write down what the block asks, before it does, and if it raises, that. Raises `OSError`: then nothing is asked."""
    audit.append_all([("asking", one) for one in asking])
    try:
        yield
    except Exception as error:
        code = error.code if isinstance(error, SiloscopeError) else SiloscopeError.code
        with contextlib.suppress(OSError):  # what failed first is what people have to hear
            audit.append_all([("asking-failed", {**one, "code": code}) for one in asking])
        raise
