"""What an asking silo's audit log says: that a question is about to leave, and then what came of it.

The first record (`asking`) is written before anything leaves, so that neither who relays the question nor a crash keeps it
out of the log. The second has the result (`asked`), or the code of what was raised instead (`asking-failed`). A question has
the same id here as at whoever answers it.
"""

import contextlib
import errno
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from silo_app.audit.log import AuditLog, Value
from silo_app.errors import ProcessFailed, SiloscopeError
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import SearchRequest, SearchResult

__all__ = ["AskingLog", "Fields", "asked", "asks", "asks_with", "begun"]

Fields = dict[str, Value]
_ENDS = {"asked", "asking-failed"}


class AskingLog(AuditLog):
    """The log of a process that may end while it asks: at its end it has of every question what came of it.

    `close` writes that those without an end have failed, and that is the last: nothing is asked or written any more.
    """

    def __init__(self, path: Path, *, sync_within_s: float = 0.0) -> None:
        super().__init__(path, sync_within_s=sync_within_s)
        self._begun: dict[str, Fields] = {}
        self._over = False
        self._order = threading.Lock()  # held while it is written: nothing begins or ends beside `close`

    def append_all(self, records: Sequence[tuple[str, Mapping[str, Value]]]) -> None:
        """Write records as any log does. Raises `OSError`, also after `close`."""
        with self._order:
            if self._over:
                raise OSError(errno.ESHUTDOWN, "this process is ending")
            super().append_all(records)
            for event, fields in records:
                if event == "asking":
                    self._begun[str(fields["asked_query"])] = dict(fields)
                elif event in _ENDS:
                    self._begun.pop(str(fields["asked_query"]), None)

    def close(self) -> None:
        """Write down what is cut off, and close the file; a second time does nothing more."""
        with self._order:
            self._over = True
            failed = [("asking-failed", {**fields, "code": ProcessFailed.code}) for fields in self._begun.values()]
            self._begun.clear()
            if failed:
                super().append_all(failed)
        super().close()


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
        "received": [f"{hit.silo}:{hit.case}" for hit in (*result.hits, *result.elsewhere)],
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
