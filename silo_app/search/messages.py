"""What silos, broker and askers say to each other: versioned messages, valid or not constructed.

SearchRequest   asker -> every silo, signed and encrypted (`envelope`): an embedding, never an image
Bundle          asker -> every silo, signed: several of these; BundleReply is what a silo says to them
SiloAnswer      silo -> asker, sealed (`envelope`): hits with what the silo's policy releases
Refusal         silo -> asker, sealed: a code and a public sentence
SearchResult    broker -> asker: what the silos sealed, and the state of every silo, also of those that said nothing
SealedRequest   what of these the server sees, and Broadcast, with the keys: `search.sealed`
Relay, Who      asker -> broker: pass a private question to one silo (`search.private`); which silos are there?
ErrorMessage    whoever -> asker: why there is no result at all
"""

import functools
import math
import secrets
from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from silo_app.cases import CaseId, Embedding, EncoderVersion
from silo_app.policy.filters import Filters
from silo_app.policy.levels import Levels
from silo_app.policy.refusal import PUBLIC, RefusalCode
from silo_app.policy.release import Card
from silo_app.printable import is_printable

__all__ = [
    "MAX_BUNDLED",
    "MAX_HITS",
    "MAX_THUMBNAIL",
    "MAX_USER",
    "MOST_MS",
    "Bundle",
    "BundleReply",
    "ErrorMessage",
    "Message",
    "Purpose",
    "Question",
    "Refusal",
    "Relay",
    "Relayed",
    "ReleasedHit",
    "ResultHit",
    "Sealed",
    "SearchRequest",
    "SearchResult",
    "SiloAnswer",
    "SiloReport",
    "SiloState",
    "Silos",
    "UnitVector",
    "User",
    "Who",
    "embedding_of",
    "new_query_id",
    "unit_embedding",
]

MAX_HITS = 1000
MAX_THUMBNAIL = 8 * 1024
"""Bytes of one picture."""
MAX_SILOS = 1000
MAX_VOUCHER = 4096
"""Bytes."""
MAX_BUNDLED = 64
"""Requests in one bundle."""
MAX_DIMENSION = 4096
MOST_MS = 60_000
"""Milliseconds that any question may take."""
MAX_USER = 128
"""Characters."""
_UNIT_TOLERANCE = 1e-3


def _is_printable(text: str) -> str:
    if not is_printable(text):
        raise ValueError("it has characters that cannot be seen")
    return text


_Hex = r"^[0-9a-f]{8,128}$"
QueryId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
SiloName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Version = Annotated[str, Field(pattern=_Hex)]
MaybeVersion = Annotated[str, Field(pattern=r"^([0-9a-f]{8,128})?$")]
"""Empty where none is named."""
Case = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Score = Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
Code = Annotated[str, Field(pattern=r"^[a-z-]{0,40}$")]
Public = Annotated[str, Field(max_length=200), AfterValidator(_is_printable)]
"""A sentence of a silo or a server, for people of others."""
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z-]{0,31}$")]
User = Annotated[str, Field(max_length=MAX_USER), AfterValidator(_is_printable)]
"""Who asks inside the asking silo, by the asker's own word."""
Thumbnail = Annotated[bytes, Field(max_length=MAX_THUMBNAIL)]
Voucher = Annotated[bytes, Field(max_length=MAX_VOUCHER)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Budget = Annotated[int, Field(ge=1, le=MOST_MS)]
"""Milliseconds."""


def _is_unit(vector: bytes) -> bytes:
    if len(vector) % 4:
        raise ValueError("not a whole number of float32")
    wide = np.frombuffer(vector, "<f4").astype(np.float64)
    if not abs(math.sqrt(float(wide @ wide)) - 1.0) <= _UNIT_TOLERANCE:
        raise ValueError("not a unit vector")
    return vector


UnitVector = Annotated[bytes, Field(min_length=4, max_length=4 * MAX_DIMENSION), AfterValidator(_is_unit)]
"""An embedding: float32 little endian (D,), a unit vector."""


class Message(BaseModel):
    """Immutable, unknown fields refused, no conversion between types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_bytes: ClassVar[int] = 4 * 1024 * 1024
    """A larger frame is refused before anything of it is read."""
    version: Literal[1] = 1


def new_query_id() -> str:
    """Return 128 random bits, hex: names a query, and tells a replayed one."""
    return secrets.token_hex(16)


class Question(Message):
    """What every signed question of a silo says: who asks, why, when, and how long the answer may take."""

    query_id: QueryId = Field(default_factory=new_query_id)
    issued_at_ms: Annotated[int, Field(ge=0, le=2**53)]
    """Milliseconds since 1970 at the asker; clocks need to agree to minutes only."""
    budget_ms: Budget
    """How long a silo may take, from when it hears of the query: no common clock is needed."""
    purpose: Purpose
    asker: SiloName
    user: User = ""
    """For the answering silo's audit."""


class SearchRequest(Question):
    """One silo's question to every silo, over the asker's embedding."""

    max_bytes: ClassVar[int] = 64 * 1024

    kind: Literal["request"] = "request"
    encoder_version: Version
    vector: UnitVector
    k: Annotated[int, Field(ge=1, le=MAX_HITS)]
    filters: Filters = Filters()
    """What cases are looked for among; nothing is all of them."""

    @functools.cached_property
    def embedding(self) -> Embedding:
        """The vector as float32 (D,)."""
        return embedding_of(self.vector)


class Bundle(Message):
    """Requests of one asker under one signature: each is decided, answered and recorded for itself."""

    max_bytes: ClassVar[int] = 512 * 1024

    kind: Literal["bundle"] = "bundle"
    query_id: QueryId = Field(default_factory=new_query_id)
    """Names the bundle."""
    budget_ms: Budget
    """How long a silo may take for all of it."""
    asker: SiloName
    encoder_version: Version
    """Of all requests."""
    k: Annotated[int, Field(ge=1, le=MAX_HITS)]
    """The largest of all requests."""
    requests: Annotated[
        tuple[Annotated[bytes, Field(max_length=SearchRequest.max_bytes)], ...], Field(min_length=1, max_length=MAX_BUNDLED)
    ]
    """Each a `SearchRequest`."""


def embedding_of(vector: bytes) -> Embedding:
    """Return the bytes of a unit vector as float32 (D,)."""
    return np.frombuffer(vector, "<f4").astype(np.float32)


def unit_embedding(vector: Embedding) -> bytes:
    """Return float32 (D,) of any length but zero as the bytes of a unit vector."""
    wide = vector.astype(np.float64)
    return (wide / np.linalg.norm(wide)).astype("<f4").tobytes()


class ReleasedHit(BaseModel):
    """One case in a silo's answer."""

    model_config = Message.model_config

    case: Case
    score: Score
    card: Card
    thumbnail: Thumbnail = b""
    """A small gray JPEG (`search.thumbnails`), or nothing."""


class SiloAnswer(Message):
    """What one silo releases to one query, best first."""

    kind: Literal["answer"] = "answer"
    query_id: QueryId
    silo: SiloName
    encoder_version: Version
    generation: Annotated[str, Field(max_length=64)]
    indexed: Count
    """Cases in the index that was asked."""
    hits: Annotated[tuple[ReleasedHit, ...], Field(max_length=MAX_HITS)]
    withheld: Count | None = 0
    """Patients whose cases were kept back because they may be the query's own. None is what a silo that keeps such cases
    back says to every query, whether there were any or not."""
    levels: Levels = ()
    """How alike random pairs of the silo's different patients are, so that people can read a similarity."""
    took_us: Count = 0


class Refusal(Message):
    """Why a silo does not answer."""

    kind: Literal["refusal"] = "refusal"
    query_id: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    """Empty where the query could not be read."""
    silo: SiloName
    code: Annotated[RefusalCode, Field(strict=False)]
    public: Public
    encoder_version: MaybeVersion = ""
    """Of the silo's index, with the code `other-encoder`."""

    @classmethod
    def of(cls, silo: str, code: RefusalCode, *, query_id: str = "", encoder_version: str = "") -> Self:
        """Return the refusal with the code's own public sentence."""
        return cls(query_id=query_id, silo=silo, code=code, public=PUBLIC[code], encoder_version=encoder_version)


class BundleReply(Message):
    """What one silo says to the requests of a bundle, in their order."""

    kind: Literal["bundle-reply"] = "bundle-reply"
    silo: SiloName
    replies: Annotated[tuple[bytes, ...], Field(min_length=1, max_length=MAX_BUNDLED)]
    """Each a `SiloAnswer` or a `Refusal`; empty for which there was no room."""


class SiloState(StrEnum):
    """What became of one silo's share of a query."""

    ANSWERED = "answered"
    LATE = "late"
    BUSY = "busy"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    OTHER_ENCODER = "other-encoder"
    NOT_READY = "not-ready"
    ERROR = "error"
    INVALID = "invalid"
    """What came in the silo's name was not signed by it, or was no answer to this query: nothing of it was used."""


class SiloReport(BaseModel):
    """One silo's state in a result; every silo of the federation has one, whatever happened."""

    model_config = Message.model_config

    silo: SiloName
    state: Annotated[SiloState, Field(strict=False)]
    code: Code = ""
    """Why, for a silo that did not answer."""
    public: Public = ""
    took_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """As the broker measured it: the silo's own time and the way there and back."""
    indexed: Count = 0
    released: Count = 0
    withheld: Count | None = 0
    """As the silo tells it (`SiloAnswer.withheld`)."""
    generation: Annotated[str, Field(max_length=64)] = ""
    encoder_version: MaybeVersion = ""


class ResultHit(BaseModel):
    """One case of a merged result."""

    model_config = Message.model_config

    silo: SiloName
    case: Case
    score: Score
    card: Card
    beyond: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    """More alike than so many percent of random pairs of different patients of that silo; None where it does not say."""
    thumbnail: Thumbnail = b""
    """As in `ReleasedHit`: to be looked at, not to be printed or written into a log."""

    @property
    def case_id(self) -> CaseId:
        """The case, typed."""
        return CaseId(self.case)


class Sealed(BaseModel):
    """What one silo replied, as it sealed it for the asker (`envelope.seal_reply`)."""

    model_config = Message.model_config

    silo: SiloName
    content: bytes


class SearchResult(Message):
    """Hits of all silos that answered, best first, and what every silo did.

    On its way from the broker it has no hits but what the silos sealed for the asker, who opens and merges that itself
    (`search.verified`). The broker can read none of it: of a silo that has replied it says "answered", whatever it replied.
    """

    max_bytes: ClassVar[int] = 16 * 1024 * 1024

    kind: Literal["result"] = "result"
    query_id: QueryId
    encoder_version: Version
    k: Annotated[int, Field(ge=1, le=MAX_HITS)]
    hits: Annotated[tuple[ResultHit, ...], Field(max_length=MAX_HITS)]
    elsewhere: Annotated[tuple[ResultHit, ...], Field(max_length=MAX_HITS)] = ()
    """Behind them, of other silos than the asker's (`merge.ranking`)."""
    silos: Annotated[tuple[SiloReport, ...], Field(max_length=MAX_SILOS)]
    sealed: Annotated[tuple[Sealed, ...], Field(max_length=MAX_SILOS)] = ()
    took_us: Count = 0
    unheard: Annotated[str, Field(max_length=1000)] = ""
    """Why no other hospital could be asked: all that is here is the own one's. Empty where the others were asked."""

    @property
    def encoder(self) -> EncoderVersion:
        """The encoder version that all hits share, typed."""
        return EncoderVersion(self.encoder_version)

    @property
    def answered(self) -> int:
        """How many silos answered."""
        return sum(report.state is SiloState.ANSWERED for report in self.silos)


class Relay(Message):
    """Asker -> broker: pass this signed question to one silo, and its reply back as it is."""

    kind: Literal["relay"] = "relay"
    silo: SiloName
    budget_ms: Budget
    frame: bytes


class Relayed(Message):
    """Broker -> asker: what one silo replied, or why there is no reply (`state` is then not `answered`)."""

    kind: Literal["relayed"] = "relayed"
    silo: SiloName
    state: Annotated[SiloState, Field(strict=False)]
    took_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    content: bytes = b""


class Who(Message):
    """Asker -> broker: name the silos that you ask."""

    kind: Literal["who"] = "who"


class Silos(Message):
    """Broker -> asker: these, what the server's clock shows, and how long they are waited for."""

    kind: Literal["silos"] = "silos"
    silos: Annotated[tuple[SiloName, ...], Field(max_length=MAX_SILOS)]
    at_ms: Annotated[int, Field(ge=0, le=2**53)]
    """Milliseconds since 1970."""
    vouchers: Annotated[dict[SiloName, Voucher], Field(max_length=MAX_SILOS)] = Field(default_factory=dict)
    """Those of their sessions' keys (`meeting`), of which the broker was told."""
    budget_ms: Budget = 1000
    """How long a search may take for which nobody says a time."""
    longest_ms: Budget = MOST_MS
    """How long any question may take, whatever its asker says."""


class ErrorMessage(Message):
    """Why there is no result. Between hospitals only the code and the public sentence; inside one, the text as well."""

    kind: Literal["error"] = "error"
    code: Code
    public: Public
    problem: Annotated[str, Field(max_length=1000)] = ""
    remedy: Annotated[str, Field(max_length=1000)] = ""
