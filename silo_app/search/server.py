"""A silo's index process: reads signed requests from the gateway's socket, and answers what the silo's policy allows.

It verifies, decides, searches, writes the audit record, and only then answers. Nothing that it is sent ends it. It must
not load torch: the asker embeds, this side only compares.
"""

import logging
import os
import threading
import time
from collections.abc import Callable

from silo_app.audit.log import AuditLog, last_records
from silo_app.cases import CaseId
from silo_app.config import SiloHome
from silo_app.errors import CatalogueDamaged, IndexDamaged, MessageInvalid, NotReady, SignatureInvalid
from silo_app.identity import Identity, Trust
from silo_app.index.storage import Storage
from silo_app.policy.refusal import RefusalCode
from silo_app.search.answer import answer
from silo_app.search.current import CurrentGallery, OpenCatalogue
from silo_app.search.envelope import open_request
from silo_app.search.local import FrameServer
from silo_app.search.messages import Refusal, SearchRequest, SiloAnswer
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest
from silo_app.search.private.service import PrivateAnswers
from silo_app.search.replays import SeenQueries
from silo_app.search.wire import encode

__all__ = ["IndexProcess"]

_log = logging.getLogger(__name__)

Request = SearchRequest | PrivateRequest | CardsRequest
Reply = SiloAnswer | PrivateAnswer | CardsAnswer | Refusal


class IndexProcess:
    """Everything that answering needs, and a socket; `answer_frame` alone is what the socket calls."""

    def __init__(
        self,
        home: SiloHome,
        *,
        trust: Trust | None = None,
        clock: Callable[[], float] = time.time,
        at_once: int | None = None,
    ) -> None:
        self._silo = home.config.name
        self._settings = home.config.release
        self._trust = trust or Identity.load(home.kit).trust
        self._clock = clock
        self._gallery = CurrentGallery(home.index, Storage.of(home))
        self._catalogue = OpenCatalogue(home)
        self._audit = AuditLog(home.audit)
        self._seen = SeenQueries()
        self._seen.remember(
            ((str(r["asker"]), str(r["query"])) for r in last_records(home.audit) if {"asker", "query"} <= r.keys()),
            clock(),
        )
        self._private = PrivateAnswers(self._silo, self._settings, self._catalogue.view_of, home.root / "private")
        self._places = threading.BoundedSemaphore(at_once or os.cpu_count() or 1)
        self._server = FrameServer(home.index_socket, self.answer_frame)

    def start(self) -> None:
        """Open index and catalogue, and listen. Raises `NotReady` if an index process of this silo runs already."""
        self._server.start()
        try:
            self._gallery.get()
            self._catalogue.view_of(CaseId(""))  # now, so that the first query does not wait for it
        except (NotReady, CatalogueDamaged, IndexDamaged) as error:
            _log.error("queries are refused until this is mended: %s", error)

    def close(self) -> None:
        """Stop listening and close every file."""
        self._server.close()
        self._private.close()
        self._catalogue.close()
        self._audit.close()

    def answer_frame(self, frame: bytes) -> bytes:
        """Return the answer to a signed request, or a refusal, as bytes; raises nothing."""
        start = time.perf_counter()
        request: Request | None = None
        try:
            request = open_request(self._trust, frame)
            reply = self._refusal(request) or self._replied(request, start)
        except SignatureInvalid as error:
            _log.warning("a request was refused: %s", error.problem)
            reply = Refusal.of(self._silo, RefusalCode.SIGNATURE_INVALID)
        except MessageInvalid as error:
            _log.warning("a request was refused: %s", error.problem)
            reply = Refusal.of(self._silo, RefusalCode.MESSAGE_INVALID)
        except IndexDamaged as error:
            _log.error("a request was refused: %s", error)
            reply = self._refuse(request, RefusalCode.INDEX_DAMAGED)
        except NotReady as error:
            _log.error("a request was refused: %s", error)
            reply = self._refuse(request, RefusalCode.NOT_READY)
        except Exception:  # noqa: BLE001  (whatever fails for one query, the next one is answered)
            _log.exception("a request was not answered")
            reply = self._refuse(request, RefusalCode.INTERNAL)
        return self._recorded(request, reply, start)

    def _refusal(self, request: Request) -> Refusal | None:
        code = self._seen.refusal(request, self._clock())
        return self._refuse(request, code) if code else None

    def _replied(self, request: Request, start: float) -> Reply:
        if isinstance(request, PrivateRequest):
            return self._private.scores(request, self._gallery.get(), self._clock())
        if isinstance(request, CardsRequest):
            return self._private.cards(request, self._clock())
        return self._searched(request, start)

    def _searched(self, request: SearchRequest, start: float) -> SiloAnswer | Refusal:
        """Search when there is a free processor; busy if there is none within the query's budget."""
        left = request.budget_ms / 1000 - (time.perf_counter() - start)
        if not self._places.acquire(timeout=max(0.0, left)):
            return self._refuse(request, RefusalCode.BUSY)
        try:
            return answer(
                request,
                self._gallery.get(),
                silo=self._silo,
                view_of=self._catalogue.view_of,
                settings=self._settings,
            )
        finally:
            self._places.release()

    def _refuse(self, request: Request | None, code: RefusalCode) -> Refusal:
        return Refusal.of(self._silo, code, query_id=request.query_id if request else "")

    def _recorded(self, request: Request | None, reply: Reply, start: float) -> bytes:
        """Return the reply as bytes once it is in the audit log; without a record nothing is released."""
        took_us = int((time.perf_counter() - start) * 1e6)
        try:
            self._record(request, reply, took_us)
        except Exception:  # noqa: BLE001  (a full disk, mostly)
            _log.exception("the audit log cannot be written: nothing is answered until it can")
            return encode(self._refuse(request, RefusalCode.INTERNAL))
        return encode(
            reply.model_copy(update={"took_us": took_us}) if isinstance(reply, SiloAnswer | PrivateAnswer) else reply
        )

    def _record(self, request: Request | None, reply: Reply, took_us: int) -> None:
        asked: dict[str, str | int | float | bool | list[str] | None] = {"took_us": took_us}
        if request is not None:
            asked |= {
                "query": request.query_id,
                "mode": "plain" if isinstance(request, SearchRequest) else "private",
                "asker": request.asker,
                "user": request.user,
                "purpose": request.purpose,
            }
        if isinstance(request, SearchRequest):
            asked["k"] = request.k
        if isinstance(request, SearchRequest | PrivateRequest):
            asked["encoder"] = request.encoder_version
        if isinstance(reply, Refusal):
            self._audit.append("refusal", {**asked, "code": reply.code.value})
        elif isinstance(reply, PrivateAnswer):
            self._audit.append("scored", {**asked, "generation": reply.generation, "views": reply.views})
        elif isinstance(reply, CardsAnswer):
            self._audit.append("answer", {**asked, "released": [hit.case for hit in reply.hits]})
        else:
            released: list[str] = [hit.case for hit in reply.hits]
            self._audit.append("answer", {**asked, "generation": reply.generation, "released": released})
