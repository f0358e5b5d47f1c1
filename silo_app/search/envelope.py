"""The signatures around a search request and around the replies: whoever relays them can neither forge nor change them.

A reply is signed for the one signed request that it replies to, by its digest: it fits no other, not even another of the
same asker over the same vector, so that a recorded reply cannot be given again.
"""

from hashlib import sha256
from typing import TypeVar, overload

import msgpack

from silo_app.errors import SignatureInvalid
from silo_app.identity import Identity, Trust
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import Message, Question, SearchRequest
from silo_app.search.parcels import is_parcel, unpack
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.wire import decode, encode
from silo_app.session_key import unsigned_payload

__all__ = ["CONTEXT", "budget_of", "open_reply", "open_request", "peek_reply", "peek_request", "seal", "seal_reply"]

_M = TypeVar("_M", bound=Message)
_N = TypeVar("_N", bound=Message)

CONTEXT = b"siloscope search request 1\0"
_REPLY_CONTEXT = b"siloscope search reply 1\0"
_USUAL_MS = 5000
_LONGEST_MS = 60_000


def seal(identity: Identity, request: Question) -> bytes:
    """Return the signed request."""
    return identity.session.sign(encode(request), context=CONTEXT)


def open_request(trust: Trust, envelope: bytes) -> SearchRequest | PrivateRequest | CardsRequest | CountRequest:
    """Return the request if the silo that it names signed it. Raises `MessageInvalid` or `SignatureInvalid`."""
    signed = trust.verify_session(envelope, context=CONTEXT, limit=PrivateRequest.max_bytes)
    request = decode(signed.payload, SearchRequest, PrivateRequest, CardsRequest, CountRequest)
    if request.asker != signed.name or not signed.signer.is_silo:
        raise SignatureInvalid(
            f"the request says that {request.asker} asks, but {signed.name[:64]!r} signed it, "
            f"{'a silo' if signed.signer.is_silo else 'which is no silo'}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return request


def peek_request(envelope: bytes) -> SearchRequest:
    """Return the request without verifying who signed it: for the broker, which only relays. Raises alike."""
    return decode(unsigned_payload(envelope, limit=SearchRequest.max_bytes), SearchRequest)


def seal_reply(identity: Identity, frame: bytes, reply: Message) -> bytes:
    """Return the reply to the signed request `frame`, signed."""
    return identity.session.sign(encode(reply), context=_REPLY_CONTEXT + sha256(frame).digest())


@overload
def open_reply(trust: Trust, silo: str, frame: bytes, signed: bytes, first: type[_M], /) -> _M: ...
@overload
def open_reply(trust: Trust, silo: str, frame: bytes, signed: bytes, first: type[_M], second: type[_N], /) -> _M | _N: ...
def open_reply(trust: Trust, silo: str, frame: bytes, signed: bytes, /, *expected: type[Message]) -> Message:
    """Return what `silo` replied to the signed request `frame`. Raises `MessageInvalid` or `SignatureInvalid`."""
    context = _REPLY_CONTEXT + sha256(frame).digest()
    verified = trust.verify_session(signed, context=context, limit=max(kind.max_bytes for kind in expected))
    if verified.name != silo or not verified.signer.is_silo:
        raise SignatureInvalid(
            f"a reply in the name of {silo} was signed by {verified.name[:64]!r}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return decode(verified.payload, *expected)


def peek_reply(signed: bytes, first: type[_M], second: type[_N]) -> _M | _N:
    """Return a reply without verifying who signed it: for the broker, which only relays. Raises `MessageInvalid`."""
    return decode(unsigned_payload(signed, limit=max(first.max_bytes, second.max_bytes)), first, second)


def budget_of(frame: bytes) -> int:
    """Return the milliseconds that a question, signed or not, or a parcel of them may take; a default if none is said."""
    budget = None
    try:
        if is_parcel(frame):
            return max((content.budget_ms for content in unpack(frame).contents), default=_USUAL_MS)
        fields = msgpack.unpackb(frame, max_ext_len=0)
        budget = msgpack.unpackb(fields.get("payload", frame), max_ext_len=0).get("budget_ms")
    except Exception:  # noqa: BLE001  (a stranger's bytes: whoever serves the frame says what is wrong with it)
        budget = None
    return budget if type(budget) is int and 0 < budget <= _LONGEST_MS else _USUAL_MS
