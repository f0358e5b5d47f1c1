"""Messages as bytes (msgpack): sized before they are read, and read into a message or refused; nothing in between."""

from typing import Any, TypeVar, overload

import msgpack
from pydantic import ValidationError

from silo_app.errors import MessageInvalid
from silo_app.search.messages import Message

__all__ = ["decode", "encode"]

_M = TypeVar("_M", bound=Message)
_N = TypeVar("_N", bound=Message)
_O = TypeVar("_O", bound=Message)
_P = TypeVar("_P", bound=Message)
_Q = TypeVar("_Q", bound=Message)
_R = TypeVar("_R", bound=Message)


def encode(message: Message) -> bytes:
    """Return the message as bytes."""
    return bytes(msgpack.packb(message.model_dump(mode="python")))


@overload
def decode(frame: bytes, first: type[_M], /) -> _M: ...
@overload
def decode(frame: bytes, first: type[_M], second: type[_N], /) -> _M | _N: ...
@overload
def decode(frame: bytes, first: type[_M], second: type[_N], third: type[_O], /) -> _M | _N | _O: ...
@overload
def decode(frame: bytes, first: type[_M], second: type[_N], third: type[_O], fourth: type[_P], /) -> _M | _N | _O | _P: ...
@overload
def decode(
    frame: bytes, first: type[_M], second: type[_N], third: type[_O], fourth: type[_P], fifth: type[_Q], /
) -> _M | _N | _O | _P | _Q: ...
@overload
def decode(
    frame: bytes,
    first: type[_M],
    second: type[_N],
    third: type[_O],
    fourth: type[_P],
    fifth: type[_Q],
    sixth: type[_R],
    /,
) -> _M | _N | _O | _P | _Q | _R: ...
def decode(frame: bytes, *expected: type[Message]) -> Message:
    """Read a message of one of the `expected` types. Raises `MessageInvalid` whatever the bytes are."""
    largest = max(kind.max_bytes for kind in expected)
    if len(frame) > largest:
        raise _invalid(f"{len(frame)} bytes; the largest allowed is {largest}")
    fields = _unpacked(frame)
    for kind in expected:
        if fields.get("kind") == kind.model_fields["kind"].default:
            return _checked(kind, fields, len(frame))
    names = " or ".join(str(kind.model_fields["kind"].default) for kind in expected)
    raise _invalid(f"it is not a message of kind {names}")


def _unpacked(frame: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(frame, use_list=False, strict_map_key=True, max_ext_len=0)
    except Exception:  # noqa: BLE001  (msgpack raises many kinds on foreign bytes)
        raise _invalid("it cannot be read as msgpack") from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise _invalid("it is not a map of named fields")
    return fields


def _checked(kind: type[_M], fields: dict[str, Any], size: int) -> _M:
    if size > kind.max_bytes:
        raise _invalid(f"{size} bytes; the largest allowed is {kind.max_bytes}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        # Names and types only: the values are a stranger's.
        problems = {f"{'.'.join(str(part) for part in p['loc'])} ({p['type']})" for p in error.errors()}
        raise _invalid(f"wrong fields: {', '.join(sorted(problems)[:5])[:300]}") from None


def _invalid(problem: str) -> MessageInvalid:
    return MessageInvalid(problem, where="message", remedy="Both sides must run the same version of Siloscope.")
