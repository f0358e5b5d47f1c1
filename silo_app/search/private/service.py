"""A silo's answers to private questions: encrypted scores of everything, then the cards that its policy releases.

The policy cannot look at the scores. What it decides by instead: whether to answer at all, how often, how exactly
(noise), and which and how many cases to show.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId, PatientKey, View
from silo_app.config import ReleaseSettings
from silo_app.errors import ProcessFailed
from silo_app.policy.budget import DailyBudget
from silo_app.policy.levels import levels_of
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import Candidate, refusal, release, shows_same_patient
from silo_app.search.answer import Found, Look, SearchableCases, are_of, told
from silo_app.search.current import OpenCatalogue
from silo_app.search.messages import Refusal
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest, SlotHit
from silo_app.search.private.order import new_seed, order_of
from silo_app.search.private.workers import UnknownSession, Workers

__all__ = ["PrivateAnswers"]

_SCORED_KEPT = 10_000
_FRESH_S = 300.0
_HELD = 3
"""Generations and orders that scores are kept for: an open gallery each, and during an ingest there is a new one every half
minute."""
_NO_LENGTH = 1e-12


@dataclass(frozen=True, slots=True)
class _Held:
    """A generation as private queries see it, without the cases that have left the catalogue."""

    cases: SearchableCases
    rows: NDArray[np.int64]
    """The rows that are scored, ascending int64 (n,)."""
    seed: int
    order: NDArray[np.int64]
    """The row that each slot holds, int64 (n,)."""

    @classmethod
    def of(cls, cases: SearchableCases, rows: NDArray[np.int64]) -> "_Held":
        """Hold these rows in a new secret order."""
        seed = new_seed()
        return cls(cases, rows, seed, rows[order_of(len(rows), seed)])

    def vectors(self) -> NDArray[np.float32]:
        """Return what is scored, float32 (n, D), in the index's own order."""
        return self.cases.index.vectors(self.rows)


@dataclass(frozen=True, slots=True)
class _Scored:
    """A query whose scores were given away: its asker may ask once for cards."""

    asker: str
    held: _Held
    until: float


@dataclass(slots=True)
class _Wanted:
    """A case that an asker wants to see."""

    view: View
    slots: list[int] = field(default_factory=list)
    alike: bool = False
    """Whether one of them stands out, by the asker's word."""


class PrivateAnswers:
    """Answers of one silo; called from many threads."""

    def __init__(self, silo: str, settings: ReleaseSettings, catalogue: OpenCatalogue, folder: Path) -> None:
        self._silo = silo
        self._settings = settings
        self._catalogue = catalogue
        self._folder = folder
        self._workers = Workers(settings.private.processes)
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._scored: OrderedDict[str, _Scored] = OrderedDict()
        self._budget: DailyBudget | None = None
        for left in folder.glob("vectors-*.npy"):  # earlier versions wrote them, and left them where they were killed
            left.unlink(missing_ok=True)

    def scores(self, request: PrivateRequest, gallery: SearchableCases | None, now: float) -> PrivateAnswer | Refusal:
        """Score every view of the cases that the catalogue holds blindly, or refuse; `now` in seconds since 1970."""
        code = self._refusal(request, gallery)
        if code is not None or gallery is None:
            encoder = str(gallery.encoder_version) if gallery and code is RefusalCode.OTHER_ENCODER else ""
            return self._refused(request.query_id, code or RefusalCode.NOT_READY, encoder)
        if not self._spend(request.asker, now):
            return self._refused(request.query_id, RefusalCode.BUDGET)
        try:
            with self._workers.turn(request.budget_ms / 1000):
                held = self._hold(gallery)
                blocks = self._blocks(request, held)
        except UnknownSession:
            return self._refused(request.query_id, RefusalCode.SESSION)
        except ProcessFailed:
            return self._refused(request.query_id, RefusalCode.BUSY)
        if not np.array_equal(held.rows, self._catalogue.rows_held(gallery)):  # somebody left meanwhile
            return self._refused(request.query_id, RefusalCode.BUSY)
        self._remember(request, held, now)
        return self._answer(request, held, blocks)

    def cards(self, request: CardsRequest, now: float, look: Look) -> CardsAnswer | Refusal:
        """Return what may be shown of the cases that an asker chose by its scores; once for each scored query.

        The rules are those of a plain answer, as far as they can be kept without the scores. Which cases may be of the
        query's own patient the asker says, signed, and the silo cannot check it. How near they are it does not say: first
        are those in the middle of all that it wants.
        """
        if request.silo != self._silo:
            return self._refused(request.query_id, RefusalCode.MESSAGE_INVALID)
        with self._lock:
            scored = self._scored.get(request.scored)
            if scored is None or scored.asker != request.asker or scored.until < now:
                return self._refused(request.query_id, RefusalCode.STALE)
            del self._scored[request.scored]
        cases = scored.held.cases.index.cases
        if code := refusal(self._settings, asker=request.asker, purpose=request.purpose, cases=cases):
            return self._refused(request.query_id, code)
        return self._shown(request, scored.held, look)

    def close(self) -> None:
        """End the scoring processes."""
        self._workers.close()
        with self._lock:
            if self._budget is not None:
                self._budget.close()

    def _refusal(self, request: PrivateRequest, gallery: SearchableCases | None) -> RefusalCode | None:
        private = self._settings.private
        cases = gallery.index.cases if gallery else self._settings.min_gallery
        if code := refusal(self._settings, asker=request.asker, purpose=request.purpose, cases=cases):
            return code
        if not private.answer or self._settings.min_similarity > -1:
            return RefusalCode.PRIVATE
        if gallery is None:
            return RefusalCode.NOT_READY
        if request.encoder_version != gallery.encoder_version or request.dimension != gallery.index.dimension:
            return RefusalCode.OTHER_ENCODER
        if gallery.index.views > private.max_views:
            return RefusalCode.PRIVATE
        enough = are_of(self._settings.min_gallery, gallery.index, self._catalogue.rows_held(gallery))
        return None if enough else RefusalCode.GALLERY_TOO_SMALL

    def _hold(self, gallery: SearchableCases) -> _Held:
        """Return what is scored now, in a new order for each generation and whenever cases left the catalogue or came back.

        A slot that fell silent in the old order would point at who was taken out, in all earlier answers too.
        """
        rows = self._catalogue.rows_held(gallery)
        with self._lock:
            held = self._held
            if held is None or held.cases.serial != gallery.serial or not np.array_equal(held.rows, rows):
                held = self._held = _Held.of(gallery, rows)  # who has scores may still ask: their order is kept with them
            return held

    def _blocks(self, request: PrivateRequest, held: _Held) -> list[bytes]:
        return self._workers.score(
            held.vectors,
            held.seed,
            request.ciphertext,
            request.session,
            request.keys,
            noise=self._settings.private.noise,
        )

    def _spend(self, asker: str, now: float) -> bool:
        with self._lock:
            if self._budget is None:
                self._budget = DailyBudget(self._folder / "budget.db")
        return self._budget.spend("private", asker, self._settings.private.queries_per_day, now=now)

    def _remember(self, request: PrivateRequest, held: _Held, now: float) -> None:
        with self._lock:
            self._scored[request.query_id] = _Scored(request.asker, held, now + _FRESH_S)
            while len(self._scored) > _SCORED_KEPT or next(iter(self._scored.values())).until < now:
                self._scored.popitem(last=False)
            latest = list(dict.fromkeys(one.held.seed for one in reversed(self._scored.values())))[:_HELD]
            for query in [query for query, one in self._scored.items() if one.held.seed not in latest]:
                del self._scored[query]

    def _answer(self, request: PrivateRequest, held: _Held, blocks: list[bytes]) -> PrivateAnswer:
        sense = held.cases.judge
        return PrivateAnswer(
            query_id=request.query_id,
            silo=self._silo,
            encoder_version=held.cases.encoder_version,
            generation=held.cases.generation,
            indexed=held.cases.index.cases,
            indexed_views=held.cases.index.views,
            views=len(held.rows),
            blocks=tuple(blocks),
            levels=levels_of(sense.likeness, views=held.cases.index.views, least=self._settings.min_gallery),
            kept_back=0 if self._shows_all(request) else sense.nearest,
            most=self._settings.max_hits,
        )

    def _shown(self, request: CardsRequest, held: _Held, look: Look) -> CardsAnswer | Refusal:
        """Return the released cases of the slots, each case once, as many as the policy allows."""
        wanted = self._wanted(request, held)
        shown = self._shows_all(request)
        named = {case.view.patient for case in wanted.values() if case.alike and not shown}
        ranked = _ranked(wanted, named, held)
        released = release(self._settings, len(request.slots), ranked, limit=None, also=named)
        if code := look(Found([candidate.case for candidate in ranked], released.nearest, len(released.withheld))):
            return self._refused(request.query_id, code)
        if not released.enough:
            return self._refused(request.query_id, RefusalCode.TOO_FEW_SIMILAR)
        hits = [SlotHit(slots=tuple(wanted[hit.case].slots), case=hit.case, card=hit.card) for hit in released.hits]
        withheld = 0 if shown else told(self._settings, released)
        return CardsAnswer(query_id=request.query_id, silo=self._silo, hits=tuple(hits), withheld=withheld)

    def _shows_all(self, request: PrivateRequest | CardsRequest) -> bool:
        """Return whether cases of the query's own patient are shown, too."""
        return request.asker == self._silo or shows_same_patient(self._settings, request.purpose)

    def _wanted(self, request: CardsRequest, held: _Held) -> dict[CaseId, _Wanted]:
        """Return the cases in the slots that were asked for, as far as the catalogue still holds them."""
        wanted: dict[CaseId, _Wanted] = {}
        for slot, alike in zip(request.slots, request.alike, strict=True):
            if slot >= len(held.order):
                continue
            case = held.cases.index.case_of(int(held.order[slot]))
            view = self._catalogue.view_of(case)
            if view is not None:
                known = wanted.setdefault(case, _Wanted(view))
                known.slots.append(slot)
                known.alike |= alike
        return wanted

    def _refused(self, query_id: str, code: RefusalCode, encoder_version: str = "") -> Refusal:
        return Refusal.of(self._silo, code, query_id=query_id, encoder_version=encoder_version)


def _ranked(wanted: Mapping[CaseId, _Wanted], named: AbstractSet[PatientKey], held: _Held) -> list[Candidate]:
    """Return cases, those first that are most similar to the mean of all whose patients are not `named`.

    It lies near the query, which the silo does not know, and is the same whoever of the named is among the wanted.
    """
    slots = [slot for case in wanted.values() for slot in case.slots]
    vectors = held.cases.index.vectors(held.order[slots])  # (slots, D)
    others = [case.view.patient not in named for case in wanted.values() for _ in case.slots]
    mean = vectors[others].sum(axis=0)
    likeness = dict(zip(slots, np.clip(vectors @ (mean / max(float(np.linalg.norm(mean)), _NO_LENGTH)), -1, 1), strict=True))
    found = [Candidate(name, max(float(likeness[slot]) for slot in case.slots), case.view) for name, case in wanted.items()]
    return sorted(found, key=lambda candidate: (-candidate.score, candidate.case))
