"""Many queries in one message: what the way costs is paid once for all of them.

A parcel carries numbered contents, each with what is left of its own budget. The contents are signed requests of any askers,
or replies to them: a parcel relays them as they are, and one that is nonsense is nonsense alone. An empty parcel asks
whether anybody is there.
"""

from dataclasses import dataclass
from typing import Any

import msgpack

from silo_app.errors import MessageInvalid

__all__ = ["MAX_CONTENTS", "MAX_PARCEL_BYTES", "Content", "Parcel", "alone", "is_parcel", "pack", "unpack", "unpacked_alone"]

MAX_CONTENTS = 256
MAX_PARCEL_BYTES = 32 * 1024 * 1024
"""Of replies: messages of the way there are kept far smaller by who sends them (`gather`, `flare.cells`)."""
_MAGIC = b"siloscope parcel 2\0"
_MAX_BUDGET_MS = 60_000


@dataclass(frozen=True, slots=True)
class Content:
    """One message in a parcel."""

    number: int
    """Names it in the reply; the sender's own."""
    body: bytes
    budget_ms: int = 0
    """What is left of its budget; 0 in a reply."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """What travels in one message."""

    contents: tuple[Content, ...] = ()


def is_parcel(frame: bytes) -> bool:
    """Return whether a frame is a parcel, and not a message by itself."""
    return frame.startswith(_MAGIC)


def pack(parcel: Parcel) -> bytes:
    """Return the parcel as bytes."""
    contents = [(content.number, content.budget_ms, content.body) for content in parcel.contents]
    return _MAGIC + bytes(msgpack.packb(contents))


def unpack(frame: bytes) -> Parcel:
    """Read a parcel; its contents are still a stranger's bytes. Raises `MessageInvalid` whatever the bytes are."""
    if len(frame) > MAX_PARCEL_BYTES or not is_parcel(frame):
        raise _invalid("it is no parcel, or larger than any may be")
    try:
        contents = msgpack.unpackb(frame[len(_MAGIC) :], use_list=False, max_ext_len=0)
        parcel = Parcel(tuple(Content(number, body, budget) for number, budget, body in contents))
    except Exception:  # noqa: BLE001  (msgpack raises many kinds on foreign bytes)
        raise _invalid("it cannot be read as msgpack") from None
    if not isinstance(contents, tuple) or not _is_sound(parcel):  # an empty map, or text, would be an empty parcel
        raise _invalid("it has fields of other types or values")
    return parcel


def alone(body: bytes, budget_ms: int) -> bytes:
    """Return one message as bytes, with what is left of its budget."""
    return pack(Parcel((Content(0, body, budget_ms),)))


def unpacked_alone(frame: bytes) -> bytes:
    """Return the reply to a message that was sent `alone`; what is no parcel of one as it is: its reader will refuse it."""
    try:
        (content,) = unpack(frame).contents
    except (MessageInvalid, ValueError):
        return frame
    return content.body


def _is_sound(parcel: Parcel) -> bool:
    contents = parcel.contents
    return (
        len(contents) <= MAX_CONTENTS
        and all(_is_count(content.number, 2**53) for content in contents)
        and all(_is_count(content.budget_ms, _MAX_BUDGET_MS) and isinstance(content.body, bytes) for content in contents)
        and len({content.number for content in contents}) == len(contents)
    )


def _is_count(value: Any, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _invalid(problem: str) -> MessageInvalid:
    return MessageInvalid(problem, where="parcel", remedy="Both sides must run the same version of Siloscope.")
