"""The asking side inside a hospital: embed here, sign, send the embedding, and read what comes back.

The image never leaves this process; what leaves the hospital is one unit vector, and who asks why.
"""

import contextlib
import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from silo_app.audit.log import AuditLog
from silo_app.cases import CaseId, Embedding, EncoderVersion
from silo_app.config import SiloHome
from silo_app.errors import BrokerUnreachable, MessageInvalid, NotReady, ProcessFailed, SiloscopeError
from silo_app.identity import Identity
from silo_app.policy.filters import Filters
from silo_app.policy.refusal import RefusalCode
from silo_app.printable import printable
from silo_app.search.bundling import Bundler
from silo_app.search.envelope import conceal, keyed, keys_for
from silo_app.search.examples import Example
from silo_app.search.local import Connections
from silo_app.search.meeting import meet
from silo_app.search.merge import first
from silo_app.search.messages import (
    MAX_HITS,
    Bundle,
    ErrorMessage,
    Message,
    SearchRequest,
    SearchResult,
    Silos,
    Who,
    unit_embedding,
)
from silo_app.search.own import OwnSilo, with_own
from silo_app.search.own_records import asked, asks_with, begun
from silo_app.search.query import Query, prepared
from silo_app.search.replies import Said
from silo_app.search.sealed import Broadcast
from silo_app.search.verified import merged, missing, said_to
from silo_app.search.wire import decode, encode

__all__ = ["Asker", "require_wide", "search_embedding", "search_file", "search_query", "unheard_of"]

_M = TypeVar("_M", bound=Message)

_ALL = Filters()
DEFAULT_BUDGET_MS = 1000
"""Where the search job does not say."""
_MEETING_MS = 300
_HEARD_FOR_S = 60.0
"""How long the budget that the search job told is believed: a job that is submitted again may give another."""
_ANSWER_MARGIN_S = 0.12
"""How much longer than the silos' budget the asker waits; the gateway gives up a little sooner, and says why.

Nobody shall wait longer than the budget and 0.2 s; what is left of these is for reading the answers and writing the audit.
"""


@dataclass(slots=True)
class _Usual:
    """The budget that the search job last told, and until when that is believed; at once asked for where nobody told any."""

    budget_ms: int = DEFAULT_BUDGET_MS
    until: float = 0.0

    def heard(self, budget_ms: int) -> None:
        self.budget_ms, self.until = budget_ms, time.monotonic() + _HEARD_FOR_S


@dataclass(frozen=True)
class Asker:
    """Who asks: a silo's identity, its sockets and its audit log; made once, it asks many times."""

    identity: Identity
    socket: Path
    audit: AuditLog
    index: Path
    """The socket of the silo's own index process."""

    @classmethod
    def of(cls, home: SiloHome, log: type[AuditLog] = AuditLog) -> "Asker":
        """Read the silo's identity. Raises `CertificateMissing`."""
        audit = log(home.audit, sync_within_s=home.audit_within_s)
        return cls(Identity.load(home.kit), home.gateway_socket, audit, home.index_socket)

    def ask(self, request: SearchRequest) -> SearchResult:
        """Send a request to the own silo and to the broker, together with others that are asked at the same time.

        A broker that is not there costs the other silos' answers (`SearchResult.unheard`). Raises `NotReady` and
        `BrokerUnreachable` if the own silo does not reply either, `MessageInvalid`.
        """
        return self._bundler.ask(request)

    def ask_own(self, request: SearchRequest) -> SearchResult:
        """Send a request to the own silo alone, which its caller writes down; the broker is asked only if it is not there.

        Raises as `ask` does.
        """
        return self._answered([request], request.budget_ms, [self.identity.name])[0]

    def close(self) -> None:
        """End what is kept for the next query: connections and threads. Whoever asks once more makes them anew."""
        for kept in ("_bundler", "_gateway", "_own"):
            if (used := self.__dict__.pop(kept, None)) is not None:
                used.close()

    def exchange(self, message: Message, expected: type[_M], budget_ms: int) -> _M:
        """Send a message that is for the broker itself and return its reply. Raises as `ask` does."""
        return self._reply(encode(message), expected, budget_ms)

    @property
    def usual_ms(self) -> int:
        """How long a search may take for which nobody says a time: what the search job says, or last said."""
        if time.monotonic() >= self._usual.until:
            self._meet(_MEETING_MS)
        return self._usual.budget_ms

    def _ask_all(self, requests: Sequence[SearchRequest], within_ms: int) -> list[SearchResult]:
        asking = [asks_with(request, mode="plain") for request in requests]
        with begun(self.audit, asking):
            results = self._answered(requests, within_ms)
        self.audit.append_all([("asked", asked(one, result)) for one, result in zip(asking, results, strict=True)])
        return results

    def _answered(self, requests: Sequence[SearchRequest], within_ms: int, only: Sequence[str] = ()) -> list[SearchResult]:
        """Return the results of all silos, or of some.

        Those whose keys were not known, or are others by now, are asked once more, with these.
        """
        end = time.monotonic() + within_ms / 1000
        if not self.identity.peers:
            self._meet(within_ms)
        question = requests[0] if len(requests) == 1 else self._bundle(requests, within_ms)
        result, said = self._heard(question, requests, max(1, _ms_until(end)), only)
        if (silos := [silo for silo, each in said.items() if _is_of_other_keys(each)]) and _ms_until(end) > 0:
            took_us, better = self._heard_again(question, requests, end, silos)
            said |= better
            result = result.model_copy(update={"took_us": result.took_us + took_us})
        return [merged(request, [one[place] for one in said.values()], result) for place, request in enumerate(requests)]

    def _heard_again(
        self, question: SearchRequest | Bundle, requests: Sequence[SearchRequest], end: float, silos: Sequence[str]
    ) -> tuple[int, dict[str, list[Said]]]:
        """Ask some silos once more; what fails costs their answers, and nothing of what the others have said."""
        begin = time.monotonic()
        try:
            again, said = self._heard(question, requests, max(1, _ms_until(end)), silos)
            error: SiloscopeError = BrokerUnreachable(again.unheard or "nothing is said of it", remedy="Ask again.")
        except (NotReady, BrokerUnreachable, MessageInvalid) as raised:
            said, error = {}, raised
        took_ms = round((time.monotonic() - begin) * 1000, 3)
        lost = {silo: missing(silo, error, took_ms, is_over=_ms_until(end) <= 0) for silo in silos if silo not in said}
        heard = {silo: said.get(silo) or [Said(lost[silo])] * len(requests) for silo in silos}
        return int(took_ms * 1000), heard

    def _meet(self, within_ms: int) -> None:
        """Ask the broker for the silos' keys and the usual budget; without the keys, refusals bring them."""
        if self._own.is_there:
            meet(self.identity, {self.identity.name: self._own.voucher()})
        try:
            told = self.exchange(Who(), Silos, min(within_ms, _MEETING_MS))
        except (NotReady, BrokerUnreachable, MessageInvalid):  # the question itself will say why
            return
        meet(self.identity, told.vouchers)
        self._usual.heard(told.budget_ms)

    def _bundle(self, requests: Sequence[SearchRequest], within_ms: int) -> Bundle:
        return Bundle(
            budget_ms=within_ms,
            asker=self.identity.name,
            encoder_version=requests[0].encoder_version,
            k=max(request.k for request in requests),
            requests=tuple(encode(request) for request in requests),
        )

    def _heard(
        self, question: SearchRequest | Bundle, requests: Sequence[SearchRequest], within_ms: int, only: Sequence[str] = ()
    ) -> tuple[SearchResult, dict[str, list[Said]]]:
        """Ask all silos, or some; return what came back, sealed and opened."""
        signed, key = conceal(self.identity, question)
        result = self._result(question, signed, keys_for(self.identity, signed, key), within_ms, only)
        return result, said_to(self.identity, requests, signed, result, bundled=isinstance(question, Bundle))

    def _result(
        self, question: SearchRequest | Bundle, signed: bytes, keys: Mapping[str, bytes], within_ms: int, only: Sequence[str]
    ) -> SearchResult:
        """Return what silos sealed: the own one is asked here, meanwhile the broker asks the others."""
        own = self.identity.name
        others = {silo: key for silo, key in keys.items() if silo != own}
        message = Broadcast(budget_ms=within_ms, frame=signed, keys=dict(keys), only=tuple(only))
        to_others = message.model_copy(update={"keys": others, "only": tuple(s for s in only if s != own), "without": own})
        if (only and own not in only) or not self._own.is_there:
            return _required(question, self._reply(encode(message), SearchResult, within_ms))
        begun = self._own.begin(keyed(signed, keys.get(own)), within_ms)
        if only and len(only) == 1:
            return with_own(_of_nobody_else(question), begun.result())
        try:
            result = _required(question, self._reply(encode(to_others), SearchResult, within_ms))
        except (NotReady, BrokerUnreachable) as error:
            if not begun.result().content:
                raise
            result = _of_nobody_else(question, unheard_of(error))
        return with_own(result, begun.result())

    @functools.cached_property
    def _usual(self) -> "_Usual":
        return _Usual()

    @functools.cached_property
    def _bundler(self) -> Bundler:
        return Bundler(self._ask_all)

    @functools.cached_property
    def _own(self) -> OwnSilo:
        return OwnSilo(self.identity.name, self.index)

    @functools.cached_property
    def _gateway(self) -> Connections:
        return Connections(self.socket)

    def _reply(self, frame: bytes, expected: type[_M], budget_ms: int) -> _M:
        try:
            reply = self._gateway.exchange(frame, budget_ms / 1000 + _ANSWER_MARGIN_S)
        except ProcessFailed as error:
            raise _no_gateway(self.socket, error) from None
        message = decode(reply, expected, ErrorMessage)
        if isinstance(message, ErrorMessage):
            raise BrokerUnreachable(
                printable(message.problem or message.public),
                where=message.code,
                remedy=printable(message.remedy) or "Is the job `search` running? Ask whoever runs the federation.",
            )
        return message


def search_embedding(
    asker: Asker,
    vector: Embedding,
    *,
    encoder_version: EncoderVersion,
    k: int = 10,
    purpose: str = "care",
    user: str = "",
    budget_ms: int | None = None,
    exclude: Iterable[CaseId] = (),
    filters: Filters = _ALL,
) -> SearchResult:
    """Search all silos for the cases nearest to an embedding, float32 (D,).

    `exclude` names cases of the asking silo, which are left out here: who they are is told to nobody. So the request
    asks for as many more. Silos that do not release a field that `filters` ask about refuse. Without `budget_ms`, silos
    have the time that the search job gives them.
    """
    excluded = frozenset(exclude)
    request = SearchRequest(
        issued_at_ms=int(time.time() * 1000),
        budget_ms=budget_ms or asker.usual_ms,
        encoder_version=encoder_version,
        vector=unit_embedding(vector),
        k=min(MAX_HITS, k + len(excluded)),
        purpose=purpose,
        asker=asker.identity.name,
        user=user,
        filters=filters,
    )
    return _without(asker.ask(request), asker.identity.name, excluded, k)


def search_file(
    home: SiloHome,
    path: Path,
    *,
    k: int = 10,
    purpose: str = "care",
    user: str = "",
    budget_ms: int | None = None,
    without_patient: bool = False,
    private: bool = False,
    filters: Filters = _ALL,
) -> SearchResult:
    """Embed a DICOM file with the encoder of the silo's index and search all silos for similar cases.

    `without_patient` leaves out the silo's own cases of the patient whom the file's header names. Raises
    `ImageUnsupported`, and what `search_query` does.
    """
    require_wide(private=private, filters=filters)
    query = prepared(home, Example(file=path), without_patient=without_patient)
    return search_query(home, query, k=k, purpose=purpose, user=user, budget_ms=budget_ms, private=private, filters=filters)


def search_query(
    home: SiloHome,
    query: Query,
    *,
    k: int = 10,
    purpose: str = "care",
    user: str = "",
    budget_ms: int | None = None,
    private: bool = False,
    filters: Filters = _ALL,
    asker: Asker | None = None,
) -> SearchResult:
    """Search all silos for the cases nearest to a query (`search.query.prepared`), with an asker that is kept or a new one.

    `private` encrypts the embedding (`search.private`). Raises `NotReady` (no encoder, no gateway), `BrokerUnreachable`,
    `EncoderMismatch` for an embedding that is too long to be searched in private, `NotReady` for a private search with
    filters: silos score all of their cases blindly.
    """
    require_wide(private=private, filters=filters)
    with contextlib.nullcontext(asker) if asker else contextlib.closing(Asker.of(home)) as asking:
        if private:
            from silo_app.search.private.ask import DEFAULT_PRIVATE_BUDGET_MS, PrivateSession

            session = PrivateSession(asking, query.encoder_version, len(query.vector))
            wanted = min(MAX_HITS, k + len(query.exclude))
            budget = budget_ms or DEFAULT_PRIVATE_BUDGET_MS
            found = session.search(query.vector, k=wanted, purpose=purpose, user=user, budget_ms=budget)
            return _without(found, asking.identity.name, query.exclude, k)
        return search_embedding(
            asking,
            query.vector,
            encoder_version=query.encoder_version,
            k=k,
            purpose=purpose,
            user=user,
            budget_ms=budget_ms,
            exclude=query.exclude,
            filters=filters,
        )


def require_wide(*, private: bool, filters: Filters) -> None:
    """Refuse a private search that is narrowed, before anything is embedded. Raises `NotReady`."""
    if private and filters:
        raise NotReady(
            "a private search cannot be narrowed: silos score all of their cases without seeing the query",
            remedy="Leave out the filters, or --private.",
        )


def _without(result: SearchResult, own: str, excluded: frozenset[CaseId], k: int) -> SearchResult:
    """Return the best `k` hits without those cases of our own silo."""
    found = (*result.hits, *result.elsewhere)
    kept = first([hit for hit in found if hit.silo != own or hit.case_id not in excluded], k, own)
    return result.model_copy(update={**kept._asdict(), "k": k})


def _required(request: SearchRequest | Bundle, result: SearchResult) -> SearchResult:
    wanted = (request.query_id, request.encoder_version, request.k)
    if (result.query_id, result.encoder_version, result.k) != wanted:
        raise MessageInvalid(
            "the broker answered another query than was asked",
            where="result",
            remedy="Nothing of it was used. Ask again, and tell whoever runs the federation.",
        )
    return result.model_copy(update={"unheard": ""})  # that is said here, and not by a broker that was heard


def _of_nobody_else(request: SearchRequest | Bundle, unheard: str = "") -> SearchResult:
    return SearchResult(
        query_id=request.query_id,
        encoder_version=request.encoder_version,
        k=request.k,
        hits=(),
        silos=(),
        unheard=unheard,
    )


def unheard_of(error: SiloscopeError) -> str:
    """Return what a result says of an error that cost the other silos' answers."""
    return f"{error.problem}. {error.remedy}".strip()[:1000]


def _ms_until(end: float) -> int:
    return int((end - time.monotonic()) * 1000)


def _is_of_other_keys(said: Sequence[Said]) -> bool:
    return all(one.report.code == RefusalCode.OTHER_KEY.value for one in said)


def _no_gateway(socket: Path, error: ProcessFailed) -> NotReady:
    return NotReady(
        f"this silo's gateway does not answer: {error.problem}",
        where=str(socket),
        remedy="Is the site running (`consortium status`, or the kit's startup/start.sh)?",
    )
