"""The signature around a search request: whoever relays it can neither forge it nor change it."""

import msgpack

from silo_app.errors import SignatureInvalid
from silo_app.identity import Identity, Trust, unverified_payload
from silo_app.search.messages import Question, SearchRequest
from silo_app.search.parcels import is_parcel, unpack
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.wire import decode, encode

__all__ = ["CONTEXT", "budget_of", "open_request", "peek_request", "seal"]

CONTEXT = b"siloscope search request 1\0"
_USUAL_MS = 5000
_LONGEST_MS = 60_000


def seal(identity: Identity, request: Question) -> bytes:
    """Return the signed request."""
    return identity.sign(encode(request), context=CONTEXT)


def open_request(trust: Trust, envelope: bytes) -> SearchRequest | PrivateRequest | CardsRequest:
    """Return the request if the silo that it names signed it. Raises `MessageInvalid` or `SignatureInvalid`."""
    signed = trust.verify(envelope, context=CONTEXT, limit=PrivateRequest.max_bytes)
    request = decode(signed.payload, SearchRequest, PrivateRequest, CardsRequest)
    if request.asker != signed.name or not signed.signer.is_silo:
        raise SignatureInvalid(
            f"the request says that {request.asker} asks, but {signed.name[:64]!r} signed it, "
            f"{'a silo' if signed.signer.is_silo else 'which is no silo'}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return request


def peek_request(envelope: bytes) -> SearchRequest:
    """Return the request without verifying who signed it: for the broker, which only relays. Raises alike."""
    return decode(unverified_payload(envelope, limit=SearchRequest.max_bytes), SearchRequest)


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
