"""The signature around a search request: whoever relays it can neither forge it nor change it."""

from silo_app.errors import MessageInvalid, SignatureInvalid
from silo_app.identity import Identity, Trust, unverified_payload
from silo_app.search.messages import SearchRequest
from silo_app.search.wire import decode, encode

__all__ = ["CONTEXT", "MAX_ENVELOPE_BYTES", "open_request", "peek_request", "seal"]

CONTEXT = b"siloscope search request 1\0"
MAX_ENVELOPE_BYTES = SearchRequest.max_bytes + 16 * 1024
"""The request, the signer's certificate and the signature."""


def seal(identity: Identity, request: SearchRequest) -> bytes:
    """Return the signed request."""
    return identity.sign(CONTEXT, encode(request))


def open_request(trust: Trust, envelope: bytes) -> SearchRequest:
    """Return the request if the silo that it names signed it. Raises `MessageInvalid` or `SignatureInvalid`."""
    _require_size(envelope)
    signed = trust.verify(CONTEXT, envelope)
    request = decode(signed.payload, SearchRequest)
    if request.asker != signed.name:
        raise SignatureInvalid(
            f"the request says that {request.asker} asks, but {signed.name[:64]!r} signed it",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return request


def peek_request(envelope: bytes) -> SearchRequest:
    """Return the request without verifying who signed it: for the broker, which only relays. Raises alike."""
    _require_size(envelope)
    return decode(unverified_payload(envelope), SearchRequest)


def _require_size(envelope: bytes) -> None:
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise MessageInvalid(
            f"{len(envelope)} bytes; the largest allowed is {MAX_ENVELOPE_BYTES}",
            where="signed request",
            remedy="Both sides must run the same version of Siloscope.",
        )
