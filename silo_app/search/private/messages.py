"""The messages of a private search: an encrypted query, encrypted scores, and then the cards of the asker's own choice."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from silo_app.policy.levels import Levels
from silo_app.policy.release import Card
from silo_app.search.messages import MAX_HITS, Case, Count, Message, QueryId, Question, SiloName, Version

__all__ = ["MOST_NAMED", "CardsAnswer", "CardsRequest", "PrivateAnswer", "PrivateRequest", "SlotHit"]

MAX_VIEWS = 300_000
_MOST_KEPT_BACK = 256
"""Of the nearest views: more than any silo keeps back."""
MOST_NAMED = 16
"""Of those, so many are asked about: every slot tells a silo that cheats something of the query."""

Slot = Annotated[int, Field(ge=0, lt=MAX_VIEWS)]


class PrivateRequest(Question):
    """Step one, to every silo, signed: an embedding that only the asker can read."""

    max_bytes: ClassVar[int] = 2 * 1024 * 1024

    kind: Literal["private"] = "private"
    encoder_version: Version
    dimension: Annotated[int, Field(ge=2, le=4096)]
    ciphertext: Annotated[bytes, Field(min_length=1, max_length=256 * 1024)]
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Names the rotation keys, which serve for all queries of a session."""
    keys: Annotated[bytes, Field(max_length=1536 * 1024)] = b""
    """The rotation keys; empty where the silo has them from an earlier query."""


class PrivateAnswer(Message):
    """The encrypted similarity of every view of a silo, in an order that only the silo knows."""

    kind: Literal["scores"] = "scores"
    query_id: QueryId
    silo: SiloName
    encoder_version: Version
    generation: Annotated[str, Field(max_length=64)]
    indexed: Count
    """Cases in the index that was scored."""
    indexed_views: Count
    """Their views: like `indexed`, the same in all answers of a generation."""
    views: Annotated[int, Field(ge=0, lt=MAX_VIEWS)]
    """Those that are scored: without cases that have left the catalogue."""
    blocks: Annotated[tuple[bytes, ...], Field(max_length=64)]
    levels: Levels = ()
    """As in `SiloAnswer`."""
    kept_back: Annotated[int, Field(ge=0, le=_MOST_KEPT_BACK)] = 0
    """So many of the nearest views may be of the query's own patient; 0 where the silo shows those too."""
    most: Count
    """Cases that the silo shows for one query at most."""
    took_us: Count = 0

    @model_validator(mode="after")
    def _views_are_of_the_index(self) -> Self:
        if not max(self.views, self.indexed) <= self.indexed_views:
            raise ValueError("more views or cases than the index has views")
        return self


class CardsRequest(Question):
    """Step two, to one silo, signed: show what may be shown of the cases in these slots."""

    max_bytes: ClassVar[int] = 64 * 1024

    kind: Literal["cards-request"] = "cards-request"
    scored: QueryId
    """The private query whose scores the asker chose by; good for one question."""
    silo: SiloName
    slots: Annotated[tuple[Slot, ...], Field(min_length=1, max_length=MAX_HITS + MOST_NAMED)]
    """Ascending, which says nothing of how similar they are."""
    alike: Annotated[tuple[bool, ...], Field(max_length=MAX_HITS + MOST_NAMED)]
    """Whether each is of the `kept_back` nearest. All that a silo is told of scores: it may have computed anything in
    place of them, the query itself too, and whatever is told of the numbers is told of that."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if len(self.alike) != len(self.slots):
            raise ValueError("another number of bits than of slots")
        if any(later <= earlier for earlier, later in pairwise(self.slots)):
            raise ValueError("slots do not ascend")
        return self


class SlotHit(BaseModel):
    """One case that a silo shows, and all slots by which it was asked for."""

    model_config = Message.model_config

    slots: Annotated[tuple[Slot, ...], Field(min_length=1, max_length=MAX_HITS)]
    case: Case
    card: Card


class CardsAnswer(Message):
    """What a silo releases of the cases that were asked for."""

    kind: Literal["cards"] = "cards"
    query_id: QueryId
    silo: SiloName
    hits: Annotated[tuple[SlotHit, ...], Field(max_length=MAX_HITS)]
    withheld: Count | None = 0
    """As in `SiloAnswer`."""
