"""A silo's index process: reads signed requests from the gateway's socket, and answers what the silo's policy allows.

It verifies, decides, searches, writes the audit record, and only then answers. Nothing that it is sent ends it. It must
not load torch: the asker embeds, this side only compares.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from silo_app.audit.log import AuditLog
from silo_app.audit.recent import newest_records
from silo_app.cases import CaseId
from silo_app.config import SiloHome
from silo_app.errors import CatalogueDamaged, IndexDamaged, MessageInvalid, NotReady, SignatureInvalid
from silo_app.identity import Trust
from silo_app.index.keeping_up import KeepingUp
from silo_app.index.storage import Storage
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import barred
from silo_app.search.answer import Found, Look, answer
from silo_app.search.counts.messages import CountAnswer, CountRequest
from silo_app.search.counts.service import Counting
from silo_app.search.current import CurrentGallery, OpenCatalogue
from silo_app.search.envelope import AnyQuestion, open_request, reveal, seal_reply, unkeyed
from silo_app.search.local import FrameServer
from silo_app.search.meeting import VOUCHER_ASKED
from silo_app.search.messages import Bundle, BundleReply, Refusal, SearchRequest, SiloAnswer
from silo_app.search.own_identity import own_identity
from silo_app.search.pace import Pace
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.private.messages import CardsRequest, PrivateAnswer, PrivateRequest
from silo_app.search.private.service import PrivateAnswers
from silo_app.search.records import Reply
from silo_app.search.refusals import FreeRefusals
from silo_app.search.replays import FRESH_S, SeenQueries
from silo_app.search.sealed import SealedRequest
from silo_app.search.standing import GENERATION_ASKED
from silo_app.search.thumbnails import illustrated
from silo_app.search.together import fitting, roomy, search_together
from silo_app.search.underway import Case, Opened, in_turns, take_out
from silo_app.search.watch import Watch
from silo_app.search.wire import encode

__all__ = ["IndexProcess"]

_log = logging.getLogger(__name__)
_PATIENCE = 0.75
"""How much of their time those of a parcel wait for what the narrowed ones need: the rest is for the answers."""


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
        self._identity = own_identity(home)
        self._trust = trust or self._identity.trust
        self._clock = clock
        self._cache = home.cache
        self._gallery = CurrentGallery(home.index, Storage.of(home))
        self._catalogue = OpenCatalogue(home)
        self._keeping_up = KeepingUp(home, self._gallery.get)
        self._audit = AuditLog(home.audit, sync_within_s=home.audit_within_s)
        self._refusals = FreeRefusals()
        self._seen = SeenQueries()
        answered = newest_records(home.audit, clock() - 2 * FRESH_S)  # an asker's clock may be ahead of ours
        asked = ((str(record["asker"]), str(record["query"])) for record in answered if {"asker", "query"} <= record.keys())
        self._seen.remember(asked, clock())
        self._watch = Watch(home)
        self._private = PrivateAnswers(self._silo, self._settings, self._catalogue, home.root / "private")
        self._places = threading.BoundedSemaphore(at_once or os.cpu_count() or 1)
        self._pace, self._pace_narrowed = Pace(), Pace()
        self._server = FrameServer(home.index_socket, self.answer_frame)

    def start(self) -> None:
        """Open index and catalogue, and listen. Raises `NotReady` if an index process of this silo runs already."""
        self._server.start()
        try:
            self._gallery.get()
            self._catalogue.view_of(CaseId(""))  # now, so that the first query does not wait for it
        except (NotReady, CatalogueDamaged, IndexDamaged) as error:
            _log.error("queries are refused until this is mended: %s", error)
        self._keeping_up.start()

    def close(self) -> None:
        """Stop listening and close every file."""
        self._keeping_up.close()
        self._server.close()
        self._private.close()
        self._catalogue.close()
        self._watch.close()
        try:
            if rest := self._refusals.rest():
                self._audit.append_all(rest)
        finally:
            self._audit.close()

    def answer_frame(self, frame: bytes) -> bytes:
        """Return the answer to a signed request, or a refusal, as bytes; of a parcel, a parcel. Raises nothing."""
        if frame == VOUCHER_ASKED:
            return self._identity.session.voucher
        if frame == GENERATION_ASKED:
            return self._open_generation()
        if not is_parcel(frame):
            return self._answered([(frame, 0.0)])[0]
        try:
            contents = unpack(frame).contents
        except MessageInvalid:
            return self._answered([(frame, 0.0)])[0]
        replies = self._answered([(content.body, content.budget_ms / 1000) for content in contents])
        return pack(Parcel(tuple(Content(content.number, reply) for content, reply in fitting(contents, replies))))

    def _open_generation(self) -> bytes:
        try:
            gallery = self._gallery.get()
        except IndexDamaged:
            return b""
        return gallery.generation.encode() if gallery else b""

    def _answered(self, frames: Sequence[tuple[bytes, float]]) -> list[bytes]:
        """Verify, decide, search, record and only then answer frames with their budgets; what one does harms no other."""
        start = time.perf_counter()
        opened = [self._opened(frame, budget_s) for frame, budget_s in frames]
        cases = [case for one in opened for case in one.cases]
        self._counted([case for case in cases if case.reply is None], self._admitted)
        searches = [case for case in cases if case.reply is None and isinstance(case.request, SearchRequest)]
        self._searched([case for case in searches if not case.is_narrowed], start)
        self._narrowing([case for case in cases if case.reply is None and case.is_narrowed], cases, start)
        self._searched([case for case in searches if case.is_narrowed and case.reply is None], start)
        for case in cases:
            if case.reply is None:
                self._guarded(case, partial(self._alone, start=start))
        self._recorded(cases, start)
        return [self._sealed(one) for one in opened]

    def _opened(self, frame: bytes, budget_s: float) -> Opened:
        """Verify who signed a frame, and take the requests out of it."""
        alone = Case(budget_s)
        bundles: list[Bundle] = []
        signed, key = unkeyed(frame)

        def read(case: Case) -> None:
            request = open_request(self._trust, signed)
            opened = reveal(self._identity, signed, request, key) if isinstance(request, SealedRequest) else request
            if opened is None and isinstance(request, SealedRequest):
                case.unread = request
                case.reply = self._refuse(None, RefusalCode.OTHER_KEY)
            elif isinstance(opened, Bundle):
                bundles.append(opened)
            else:
                case.request = opened

        self._guarded(alone, read)
        if not bundles:
            return Opened(signed, [alone])
        cases = [Case(budget_s) for _ in bundles[0].requests]
        for case, content in zip(cases, bundles[0].requests, strict=True):
            self._guarded(case, partial(take_out, bundles[0], content))
        return Opened(signed, cases, bundled=True)

    def _admitted(self, case: Case) -> None:
        """Refuse who may not ask, before anything is remembered or counted; then what was asked before, or too often."""
        request = case.request
        if request is None:
            return
        code = barred(self._settings, asker=request.asker, purpose=request.purpose)
        code = code or self._seen.refusal(request, self._clock()) or self._watch.asked(request, self._clock())
        if code is not None:
            case.reply = self._refuse(request, code)
        else:
            case.has_cost = not isinstance(request, CardsRequest)

    def _alone(self, case: Case, *, start: float) -> None:
        """Answer what is not searched for together with others."""
        if isinstance(case.request, CountRequest):
            case.reply = self._how_many(case, case.request, start)
        elif isinstance(case.request, PrivateRequest):
            case.reply = self._private.scores(case.request, self._gallery.get(), self._clock())
        elif isinstance(case.request, CardsRequest):
            case.reply = self._private.cards(case.request, self._clock(), self._look(case))

    def _how_many(self, case: Case, request: CountRequest, start: float) -> Reply:
        """Count when there is a free processor; busy if there is none within its budget."""
        if not self._places.acquire(timeout=max(0.0, case.left_s(start))):
            return self._refuse(request, RefusalCode.BUSY)
        try:
            gallery = self._gallery.get()
            counting = Counting(
                silo=self._silo,
                settings=self._settings,
                views_of=self._catalogue.as_it_is,
                rows_where=self._catalogue.rows_of(gallery),
                look=self._look(case),
                secret=self._watch.secret,
            )
            return counting.answer(request, gallery, lambda: case.left_s(start))
        finally:
            self._places.release()

    def _narrowing(self, narrowed: list[Case], all_of_parcel: list[Case], start: float) -> None:
        """Have read what the narrowed ones need; busy if that takes longer than all who came with them can wait."""
        if narrowed:
            left_s = min((left for case in all_of_parcel if (left := case.left_s(start)) > 0), default=0.0)
            if not self._catalogue.prepare_narrowing(_PATIENCE * left_s):
                self._busy(narrowed)

    def _searched(self, cases: list[Case], start: float) -> None:
        """Search for all together when there is a free processor; busy for whom there is none within its budget."""
        if not cases:
            return
        longest_s = max(case.left_s(start) for case in cases)
        if not self._places.acquire(timeout=max(0.0, longest_s)):
            self._busy(cases)
            return
        try:
            self._searched_in_time(cases, start)
        finally:
            self._places.release()

    def _searched_in_time(self, cases: Sequence[Case], start: float) -> None:
        """Search for as many as there is time for, some at once; the others are told at once that they are too many.

        What is answered too late is of no use to anybody, and has taken the time of those who come next.
        """
        waiting, asked = list(cases), list[Case]()
        pace = self._pace_narrowed if cases[0].is_narrowed else self._pace
        while True:
            # the first ones are always tried, or a silo that was slow for a moment would never know that it no longer is
            self._busy([case for case in waiting if not pace.allows(case.left_s(start), is_known=bool(asked))])
            if not (waiting := [case for case in waiting if case.reply is None]):
                return
            many = pace.fitting(min(case.left_s(start) for case in waiting), len(waiting))
            if many < len(waiting):
                waiting = in_turns(waiting)
            asked, waiting = waiting[:many], waiting[many:]
            with pace.of(len(asked)):
                self._search_together(asked)
                self._counted([case for case in asked if not case.is_narrowed], self._search)
                for case in asked:
                    if case.reply is None:  # the narrowed ones look at the index once more: nobody's count waits for that
                        self._guarded(case, self._search)

    def _busy(self, cases: Sequence[Case]) -> None:
        for case in cases:
            case.reply = self._refuse(case.request, RefusalCode.BUSY)

    def _search_together(self, cases: list[Case]) -> None:
        """Look at the index once for all; if that fails, each is searched for alone, and fails alone."""
        requests = [case.request for case in cases if isinstance(case.request, SearchRequest)]
        try:
            gallery = self._gallery.get()
            found = search_together(gallery, requests, self._settings, self._catalogue, silo=self._silo) if gallery else None
        except Exception as error:  # noqa: BLE001  (whatever it is, it comes again where it belongs)
            _log.warning("requests were not searched for together: %s", type(error).__name__)
            return
        for case in cases:
            case.found = found

    def _search(self, case: Case) -> None:
        if isinstance(case.request, SearchRequest):
            gallery = case.found.gallery if case.found else self._gallery.get()
            view_of = case.found.view_of if case.found else self._catalogue.as_it_is()
            reply = answer(
                case.request,
                gallery,
                silo=self._silo,
                view_of=view_of,
                settings=self._settings,
                look=self._look(case),
                rows_where=self._catalogue.rows_of(gallery),
            )
            if isinstance(reply, SiloAnswer):
                reply = illustrated(reply, self._settings, view_of, self._cache)
            case.reply = reply

    def _look(self, case: Case) -> Look:
        """Return the look at what was found for a case: whose it is, and whether it was planted."""

        def look(found: Found) -> RefusalCode | None:
            if case.request is None:
                return RefusalCode.INTERNAL
            case.kept_back, case.canaries = found.kept_back, self._watch.planted(found)
            return self._watch.found(case.request, found, self._clock())

        return look

    def _counted(self, cases: list[Case], step: Callable[[Case], None]) -> None:
        """Do one step for each case, and count towards the budgets for all at once; uncounted, nothing is answered."""
        try:
            with self._watch.together():
                for case in cases:
                    self._guarded(case, step)
        except Exception:  # noqa: BLE001  (a full disk, mostly)
            _log.exception("the budgets cannot be written: nothing is answered until they can")
            for case in cases:
                case.reply = self._refuse(case.request, RefusalCode.INTERNAL)

    def _guarded(self, case: Case, step: Callable[[Case], None]) -> None:
        """Do one step for one case; whatever fails becomes that case's refusal."""
        try:
            step(case)
        except SignatureInvalid as error:
            _log.warning("a request was refused: %s", error.problem)
            case.reply = Refusal.of(self._silo, RefusalCode.SIGNATURE_INVALID)
        except MessageInvalid as error:
            _log.warning("a request was refused: %s", error.problem)
            case.reply = Refusal.of(self._silo, RefusalCode.MESSAGE_INVALID)
        except IndexDamaged as error:
            _log.error("a request was refused: %s", error)
            case.reply = self._refuse(case.request, RefusalCode.INDEX_DAMAGED)
        except NotReady as error:
            _log.error("a request was refused: %s", error)
            case.reply = self._refuse(case.request, RefusalCode.NOT_READY)
        except Exception:  # noqa: BLE001  (whatever fails for one query, the next one is answered)
            _log.exception("a request was not answered")
            case.reply = self._refuse(case.request, RefusalCode.INTERNAL)

    def _refuse(self, request: AnyQuestion | None, code: RefusalCode) -> Refusal:
        return Refusal.of(self._silo, code, query_id=request.query_id if request else "")

    def _recorded(self, cases: list[Case], start: float) -> None:
        """Write the replies into the audit log; without a record nothing is released."""
        took_us = int((time.perf_counter() - start) * 1e6)
        events = self._refusals.due(now := self._clock())
        try:
            for case in cases:
                of_case = case.events(self._reply(case), took_us)
                events += self._refusals.recorded(of_case[0], now) if case.is_free else of_case
            if events:
                self._audit.append_all(events)
        except Exception:  # noqa: BLE001  (a full disk, mostly)
            _log.exception("the audit log cannot be written: nothing is answered until it can")
            self._refusals.unrecorded(events, now)
            for case in cases:
                case.reply = self._refuse(case.request, RefusalCode.INTERNAL)
        for case in cases:
            if isinstance(case.reply, SiloAnswer | PrivateAnswer | CountAnswer):
                case.reply = case.reply.model_copy(update={"took_us": took_us})

    def _reply(self, case: Case) -> Reply:
        return case.reply or self._refuse(case.request, RefusalCode.INTERNAL)

    def _sealed(self, opened: Opened) -> bytes:
        """Return the reply to a frame, for its asker alone."""
        replies = [self._reply(case) for case in opened.cases]
        if not opened.bundled:
            return seal_reply(self._identity, opened.frame, replies[0])
        bundled = BundleReply(silo=self._silo, replies=roomy([encode(reply) for reply in replies], BundleReply.max_bytes))
        return seal_reply(self._identity, opened.frame, bundled)
