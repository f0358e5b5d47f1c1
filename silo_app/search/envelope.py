"""Around a search request a signature, around the replies a seal: whoever relays them can neither forge nor change them.

A request is signed, since every silo is asked the same. A reply is sealed (`session_key`): nobody but the asker reads what a
silo releases, the server that relays it neither. It is bound to the one signed request that it replies to, by its digest: it
fits no other, not even another of the same asker over the same vector, so that a recorded reply cannot be given again.
"""

from hashlib import sha256
from typing import TypeVar, overload

import msgpack

from silo_app.errors import ProtocolError, SignatureInvalid
from silo_app.identity import Identity, Trust
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import Bundle, Message, Question, Refusal, SearchRequest
from silo_app.search.parcels import is_parcel, unpack
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.wire import decode, encode
from silo_app.session_key import is_sealed, unsigned_payload

__all__ = ["CONTEXT", "budget_of", "open_reply", "open_request", "peek_request", "seal", "seal_reply"]

_M = TypeVar("_M", bound=Message)
_N = TypeVar("_N", bound=Message)

CONTEXT = b"siloscope search request 1\0"
_REPLY_CONTEXT = b"siloscope search reply 2\0"
_USUAL_MS = 5000
_LONGEST_MS = 60_000


def seal(identity: Identity, request: Question | Bundle) -> bytes:
    """Return the signed request."""
    return identity.session.sign(encode(request), context=CONTEXT)


def open_request(trust: Trust, envelope: bytes) -> SearchRequest | PrivateRequest | CardsRequest | CountRequest | Bundle:
    """Return the request if the silo that it names signed it. Raises `MessageInvalid` or `SignatureInvalid`."""
    signed = trust.verify_session(envelope, context=CONTEXT, limit=PrivateRequest.max_bytes)
    request = decode(signed.payload, SearchRequest, Bundle, PrivateRequest, CardsRequest, CountRequest)
    if request.asker != signed.name or not signed.signer.is_silo:
        raise SignatureInvalid(
            f"the request says that {request.asker} asks, but {signed.name[:64]!r} signed it, "
            f"{'a silo' if signed.signer.is_silo else 'which is no silo'}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return request


def peek_request(envelope: bytes) -> SearchRequest | Bundle:
    """Return the request without verifying who signed it: for the broker, which only relays. Raises alike."""
    return decode(unsigned_payload(envelope, limit=Bundle.max_bytes), SearchRequest, Bundle)


def seal_reply(identity: Identity, frame: bytes, reply: Message) -> bytes:
    """Return the reply to the signed request `frame`, as its asker alone can read it.

    A refusal of what nobody known has signed is itself signed in the open: there is nobody to seal it for.
    """
    context = _REPLY_CONTEXT + sha256(frame).digest()
    try:
        asker = identity.trust.session_of(frame, limit=PrivateRequest.max_bytes)
    except ProtocolError:
        if not isinstance(reply, Refusal):
            raise
        return identity.session.sign(encode(reply), context=context)
    return identity.session.seal(encode(reply), asker, context=context)


@overload
def open_reply(identity: Identity, silo: str, frame: bytes, reply: bytes, first: type[_M], /) -> _M: ...
@overload
def open_reply(
    identity: Identity, silo: str, frame: bytes, reply: bytes, first: type[_M], second: type[_N], /
) -> _M | _N: ...
def open_reply(identity: Identity, silo: str, frame: bytes, reply: bytes, /, *expected: type[Message]) -> Message:
    """Return what `silo` replied to one's own signed request `frame`. Raises `MessageInvalid` or `SignatureInvalid`."""
    context = _REPLY_CONTEXT + sha256(frame).digest()
    limit = max(kind.max_bytes for kind in expected)
    if is_sealed(reply):
        verified = identity.trust.unseal(reply, identity.session, context=context, question=frame, limit=limit)
    else:
        verified = identity.trust.verify_session(reply, context=context, limit=limit)
        expected = (Refusal,)
    if verified.name != silo or not verified.signer.is_silo:
        raise SignatureInvalid(
            f"a reply in the name of {silo} was signed by {verified.name[:64]!r}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return decode(verified.payload, *expected)


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
