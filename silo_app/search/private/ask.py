"""Ask every other silo in private: encrypt the embedding here, open the scores here, and ask for the cards of the best only.

What a silo learns: that somebody asks, which of its cases the asker wants to see, and of each whether it is among as many of
the nearest as the silo keeps back. What it does not learn: the query. Nothing else that was decrypted may leave: a silo that
sends something else than scores would read it there.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Embedding, EncoderVersion
from silo_app.errors import BrokerUnreachable, MessageInvalid, NotReady, ProtocolError
from silo_app.policy.levels import Level, share_beyond
from silo_app.policy.refusal import RefusalCode
from silo_app.search.ask import Asker, unheard_of
from silo_app.search.merge import first
from silo_app.search.messages import (
    MAX_HITS,
    ResultHit,
    SearchRequest,
    SearchResult,
    SiloReport,
    SiloState,
    new_query_id,
    unit_embedding,
)
from silo_app.search.own_records import asked, asks, begun
from silo_app.search.private.asker import Asking, PrivateQuery
from silo_app.search.private.messages import MOST_NAMED, CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest
from silo_app.search.relayed import ask_silo, known_silos
from silo_app.search.verified import BROKERS_WORD, invalid, missing

__all__ = ["DEFAULT_PRIVATE_BUDGET_MS", "PrivateSession"]

DEFAULT_PRIVATE_BUDGET_MS = 30_000
"""The first private query of a generation waits until the silo has prepared its vectors."""
_SPARE_SLOTS = 16


_Shown = tuple[SiloReport, tuple[ResultHit, ...]]
"""What came of one silo: its report, and the hits that it released."""


@dataclass(frozen=True, slots=True)
class _Ids:
    """The ids of one search, the same at all silos, and known before anything is asked: both ends' records have them."""

    first: str = field(default_factory=new_query_id)
    """Of the question for scores, and of the result."""
    again: str = field(default_factory=new_query_id)
    """Of that question with the keys, to a silo that has lost them."""
    cards: str = field(default_factory=new_query_id)

    @property
    def all(self) -> list[str]:
        return [self.first, self.again, self.cards]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one silo gave: its report, and its best views' slots and similarities."""

    report: SiloReport
    query_id: str = ""
    slots: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    levels: tuple[Level, ...] = ()
    kept_back: int = 0
    """So many of the best the silo will not show."""
    most: int = 0

    @property
    def others(self) -> tuple[float, ...]:
        """The similarities of those that it may show."""
        return self.scores[self.kept_back :]


class PrivateSession:
    """The keys of one asker for one encoder, good for many queries; the secret one stays in this process."""

    def __init__(self, asker: Asker, encoder_version: EncoderVersion, dimension: int) -> None:
        self._asker = asker
        self._encoder = encoder_version
        self._asking = Asking.begin(dimension)
        self._name = uuid4().hex
        self._known: set[str] = set()
        self._indexed: dict[str, tuple[str, int, int]] = {}
        """What each silo said of its index last: generation, cases, views."""

    def search(
        self,
        vector: Embedding,
        *,
        k: int = 10,
        purpose: str = "care",
        user: str = "",
        budget_ms: int = DEFAULT_PRIVATE_BUDGET_MS,
    ) -> SearchResult:
        """Return the nearest `k` cases of all silos to a unit vector, float32 (D,), as a plain search would.

        The own silo is asked as by a plain search: its index process learns the query, and nobody else. A broker that is
        not there costs the other silos' answers (`SearchResult.unheard`). Raises `NotReady` and `BrokerUnreachable` if the
        own silo does not reply either; a silo that refuses, fails or talks nonsense is named in the result.
        """
        start = time.monotonic()
        query = self._asking.ask(vector)
        common = {"purpose": purpose, "user": user, "budget_ms": budget_ms, "asker": self._asker.identity.name}
        ids = _Ids()
        plain = SearchRequest(
            issued_at_ms=int(time.time() * 1000),
            encoder_version=self._encoder,
            vector=unit_embedding(vector),
            k=k,
            **common | {"query_id": ids.first},  # type: ignore[arg-type]  # the fields of every question
        )
        asking = asks(ids.first, mode="private", user=user, purpose=purpose, encoder=self._encoder) | {"queries": ids.all}
        with begun(self._asker.audit, [asking]), ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
            own = pool.submit(self._own, plain)
            try:
                others, unheard = self._others(query, k, ids, common, budget_ms), ""
            except (NotReady, BrokerUnreachable) as error:
                if all(report.state in BROKERS_WORD for report, _ in own.result()):
                    raise
                others, unheard = [], unheard_of(error)
            shown = sorted([*own.result(), *others], key=lambda one: one[0].silo)
        found = sorted((hit for _, hits in shown for hit in hits), key=lambda hit: (-hit.score, hit.silo, hit.case))
        ranked = first(found, k, self._asker.identity.name)
        result = SearchResult(
            query_id=ids.first,
            encoder_version=self._encoder,
            k=k,
            hits=ranked.hits,
            elsewhere=ranked.elsewhere,
            silos=tuple(report for report, _ in shown),
            took_us=int((time.monotonic() - start) * 1e6),
            unheard=unheard,
        )
        self._asker.audit.append("asked", asked(asking, result))
        return result

    def _own(self, request: SearchRequest) -> list[_Shown]:
        """Ask the own silo, which need not be blind to what its own house asks; what fails there costs nothing else.

        Nothing if it has no index process and is none of the broker's silos: it only asks.
        """
        own = self._asker.identity.name
        start = time.monotonic()
        try:
            found = self._asker.ask_own(request)
        except (NotReady, BrokerUnreachable, MessageInvalid) as error:
            return [(missing(own, error, round((time.monotonic() - start) * 1000, 3), is_over=False), ())]
        return [(report, found.hits) for report in found.silos]

    def _others(self, query: PrivateQuery, k: int, ids: _Ids, common: dict[str, object], budget_ms: int) -> list[_Shown]:
        """Ask every other silo for its scores, and then for the cards of the best of theirs. Raises as `known_silos`."""
        silos = [silo for silo in known_silos(self._asker, budget_ms) if silo != self._asker.identity.name]
        with ThreadPoolExecutor(max(1, len(silos)), thread_name_prefix="private") as pool:
            parts = list(pool.map(lambda silo: self._part(silo, query, k, ids, common), silos))
            chosen = _chosen(parts, k)
            return list(pool.map(lambda part: self._cards(part, chosen, common | {"query_id": ids.cards}), parts))

    def _part(self, silo: str, query: PrivateQuery, k: int, ids: _Ids, common: dict[str, object]) -> _Part:
        """Ask one silo for its scores; a second time with the keys if it does not have them."""
        with_keys = silo not in self._known
        part = self._scores(silo, query, k, common | {"query_id": ids.first}, with_keys=with_keys)
        if part.report.code == RefusalCode.SESSION.value:
            part = self._scores(silo, query, k, common | {"query_id": ids.again}, with_keys=True)
        if part.report.state is SiloState.ANSWERED:
            self._known.add(silo)
        return part

    def _scores(self, silo: str, query: PrivateQuery, k: int, common: dict[str, object], *, with_keys: bool) -> _Part:
        request = PrivateRequest(
            issued_at_ms=int(time.time() * 1000),
            encoder_version=self._encoder,
            dimension=query.dimension,
            ciphertext=query.ciphertext,
            session=self._name,
            keys=self._asking.keys if with_keys else b"",
            **common,  # type: ignore[arg-type]  # the fields of every question
        )
        report, answer = ask_silo(self._asker, silo, request, PrivateAnswer, partial(_require_scores, silo, request))
        if answer is None:
            return _Part(report)
        try:
            return self._opened(report, request, answer, k)
        except ProtocolError as error:
            return _Part(invalid(silo, error, report.took_ms))

    def _opened(self, report: SiloReport, request: PrivateRequest, answer: PrivateAnswer, k: int) -> _Part:
        """Open a silo's scores. Raises `MessageInvalid` for nonsense."""
        said = (answer.generation, answer.indexed, answer.indexed_views)
        if (before := self._indexed.setdefault(answer.silo, said)) != said and before[0] == answer.generation:
            raise MessageInvalid(
                "its index has another size than before", where=answer.silo, remedy="Nothing of it was used."
            )
        self._indexed[answer.silo] = said
        similarity = self._asking.open(list(answer.blocks), answer.views)
        best = _best(similarity, answer.kept_back + min(MAX_HITS, k + _SPARE_SLOTS))
        told = {"indexed": answer.indexed, "generation": answer.generation, "encoder_version": answer.encoder_version}
        slots, scores = tuple(best.tolist()), tuple(similarity[best].tolist())
        report = report.model_copy(update=told)
        return _Part(report, request.query_id, slots, scores, answer.levels, answer.kept_back, answer.most)

    def _cards(self, part: _Part, chosen: float, common: dict[str, object]) -> _Shown:
        """Ask one silo for the cards of those of its views that may be among the best of the other silos."""
        scores = dict(zip(part.slots, part.scores, strict=True))
        silo = part.report.silo
        wanted = sum(score >= chosen for score in part.others)
        if not wanted:
            return part.report.model_copy(update={"withheld": None if part.kept_back else 0}), ()
        alike = _asked_for(part, wanted)
        request = CardsRequest(
            issued_at_ms=int(time.time() * 1000),
            scored=part.query_id,
            silo=silo,
            slots=tuple(alike),
            alike=tuple(alike.values()),
            **common,  # type: ignore[arg-type]  # the fields of every question
        )
        report, answer = ask_silo(self._asker, silo, request, CardsAnswer, partial(_require_chosen, silo, request))
        took_ms = round(part.report.took_ms + report.took_ms, 3)
        if answer is None:
            return report.model_copy(update={"took_ms": took_ms}), ()
        hits = tuple(_hits(part, answer, scores))
        told = {"took_ms": took_ms, "released": len(hits), "withheld": answer.withheld}
        return part.report.model_copy(update=told), hits


def _best(similarity: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the slots of the `count` greatest similarities, best first, int64 (count,)."""
    return np.argsort(-similarity, kind="stable")[:count].astype(np.int64)


def _chosen(parts: Iterable[_Part], k: int) -> float:
    """Return the similarity from which on a view may be among the best of the other silos: nobody is asked for more."""
    scores = sorted((score for part in parts for score in part.others), reverse=True)
    wanted = k + _SPARE_SLOTS  # several views may be of one case, or of a case that was recalled
    return scores[wanted - 1] if len(scores) >= wanted else -2.0


def _asked_for(part: _Part, wanted: int) -> dict[int, bool]:
    """Return the slots to ask one silo for, ascending, and of each whether it is of the nearest, which are kept back.

    Some of those are named, for the silo to keep back all cases of their patients; of the others nothing is asked, since
    every slot tells a silo that cheats something of the query. Those behind them are as many as the silo shows: it would not
    know which to leave out, since it is not told which are the nearest. But never so few that they have no company: a silo
    shows no case alone (`min_cases`).
    """
    alike = dict.fromkeys(part.slots[: min(part.kept_back, MOST_NAMED)], True)
    below = part.slots[part.kept_back :][: min(max(wanted, _SPARE_SLOTS), max(part.most, _SPARE_SLOTS))]
    return dict(sorted((alike | dict.fromkeys(below, False)).items()))


def _require_scores(silo: str, request: PrivateRequest, answer: PrivateAnswer) -> None:
    if (answer.silo, answer.query_id, answer.encoder_version) != (silo, request.query_id, request.encoder_version):
        raise MessageInvalid("it answers another query", where=silo, remedy="Nothing of it was used.")


def _require_chosen(silo: str, request: CardsRequest, answer: CardsAnswer) -> None:
    """Raise `MessageInvalid` for cards of what was not asked for."""
    shown = [slot for hit in answer.hits for slot in hit.slots]
    fits = (answer.silo, answer.query_id) == (silo, request.query_id) and set(shown) <= set(request.slots)
    if not fits or len(set(shown)) != len(shown) or len({hit.case for hit in answer.hits}) != len(answer.hits):
        raise MessageInvalid("it shows other cases than were asked for", where=silo, remedy="Nothing of it was used.")


def _hits(part: _Part, answer: CardsAnswer, scores: dict[int, float]) -> Sequence[ResultHit]:
    """Return a silo's cards with our own scores."""
    nearest = [max(scores[slot] for slot in hit.slots) for hit in answer.hits]
    return [
        ResultHit(
            silo=part.report.silo,
            case=hit.case,
            score=round(score, 6),
            card=hit.card,
            beyond=share_beyond(part.levels, score),
        )
        for hit, score in zip(answer.hits, nearest, strict=True)
    ]
