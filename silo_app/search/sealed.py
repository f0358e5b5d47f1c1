"""The messages by which a question that only the silos read passes the broker, which gives each silo its key.

SealedRequest   asker -> every silo, signed: what of a request the server sees: who asks, how many, and how long it may take
Broadcast       asker -> broker: ask the silos this signed request, each with the key that opens it
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from silo_app.search.messages import MAX_BUNDLED, MAX_HITS, MAX_SILOS, Budget, MaybeVersion, Message, QueryId, SiloName

__all__ = ["Broadcast", "SealedRequest"]

_LARGEST = 2 * 1024 * 1024 + 1024
"""Bytes: a private query with its rotation keys, encrypted."""


class SealedRequest(Message):
    """What a request or a bundle, encrypted in `content`, says to whoever relays it."""

    max_bytes: ClassVar[int] = _LARGEST + 40 * 1024

    kind: Literal["sealed-request"] = "sealed-request"
    query_id: QueryId
    budget_ms: Budget
    asker: SiloName
    encoder_version: MaybeVersion
    """Empty where the question names none: which cards are wanted of a private search."""
    k: Annotated[int, Field(ge=1, le=MAX_HITS)]
    queries: Annotated[int, Field(ge=1, le=MAX_BUNDLED)]
    content: Annotated[bytes, Field(max_length=_LARGEST)]


class Broadcast(Message):
    """Asker -> broker: a signed request to all silos, or to some of them."""

    max_bytes: ClassVar[int] = 1024 * 1024

    kind: Literal["broadcast"] = "broadcast"
    budget_ms: Budget
    """What is left of the request's."""
    frame: bytes
    keys: Annotated[dict[SiloName, Annotated[bytes, Field(max_length=128)]], Field(max_length=MAX_SILOS)] = Field(
        default_factory=dict
    )
    """What opens the request, for each silo alone (`envelope.keyed`)."""
    only: Annotated[tuple[SiloName, ...], Field(max_length=MAX_SILOS)] = ()
    """Ask no others; empty is all."""
    without: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")] = ""
    """A silo that is not asked: the asker's own, which needs no network."""
