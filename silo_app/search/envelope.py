"""The signature around a search request: whoever relays it can neither forge it nor change it."""

from silo_app.errors import SignatureInvalid
from silo_app.identity import Identity, Trust, unverified_payload
from silo_app.search.messages import Question, SearchRequest
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.wire import decode, encode

__all__ = ["CONTEXT", "open_request", "peek_request", "seal"]

CONTEXT = b"siloscope search request 1\0"


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
