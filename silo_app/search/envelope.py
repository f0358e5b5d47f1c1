"""Around a search request a signature, around the replies a seal: whoever relays them can neither forge nor change them.

A request is signed, since every silo is asked the same, and what it asks is encrypted for the silos: the server that relays
it reads neither embedding nor filters, purpose or user. A reply is sealed (`session_key`): nobody but the asker reads what a
silo releases, the server that relays it neither. It is bound to the one signed request that it replies to, by its digest: it
fits no other, not even another of the same asker over the same vector, so that a recorded reply cannot be given again.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import TypeVar, overload

import msgpack

from silo_app.errors import MessageInvalid, ProtocolError, SignatureInvalid
from silo_app.identity import Identity, Trust
from silo_app.search.counts.messages import CountRequest
from silo_app.search.messages import MOST_MS, Bundle, Message, Question, Refusal, SearchRequest
from silo_app.search.parcels import is_parcel, unpack
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.sealed import SealedRequest
from silo_app.search.wire import decode, encode
from silo_app.session_key import LOCKED_BYTES, decrypted, encrypted, is_sealed, unsigned_payload

__all__ = [
    "CONTEXT",
    "AnyQuestion",
    "budget_of",
    "conceal",
    "is_question",
    "keyed",
    "keys_for",
    "open_reply",
    "open_request",
    "peek_request",
    "reveal",
    "seal",
    "seal_reply",
    "unbundled",
    "unkeyed",
]

AnyQuestion = SearchRequest | PrivateRequest | CardsRequest | CountRequest
_M = TypeVar("_M", bound=Message)
_N = TypeVar("_N", bound=Message)

CONTEXT = b"siloscope search request 1\0"
_KEYED = b"siloscope keyed request 1\0"
_REPLY_CONTEXT = b"siloscope search reply 2\0"
_USUAL_MS = 5000


def seal(identity: Identity, request: Question | Bundle) -> bytes:
    """Return the signed request, for everybody to read."""
    return identity.session.sign(encode(request), context=CONTEXT)


def conceal(identity: Identity, request: AnyQuestion | Bundle) -> tuple[bytes, bytes]:
    """Return the request, encrypted and then signed, and the key that opens it, for whoever is asked (`keys_for`)."""
    content, key = encrypted(encode(request))
    sealed = SealedRequest(
        query_id=request.query_id,
        budget_ms=request.budget_ms,
        asker=request.asker,
        encoder_version="" if isinstance(request, CardsRequest) else request.encoder_version,
        k=request.k if isinstance(request, SearchRequest | Bundle) else 1,
        queries=len(request.requests) if isinstance(request, Bundle) else 1,
        content=content,
    )
    return identity.session.sign(encode(sealed), context=CONTEXT), key


def keys_for(identity: Identity, signed: bytes, key: bytes, silos: Iterable[str] | None = None) -> dict[str, bytes]:
    """Return the key of a concealed request for each silo whose session is known, as that one alone can read it.

    Who is not known, or has other keys by now, refuses with `other-key`; with that refusal it becomes known.
    """
    peers = dict(identity.peers)  # another thread may meet somebody meanwhile
    chosen = peers if silos is None else {silo: peers[silo] for silo in silos if silo in peers}
    return {silo: identity.session.lock(key, peer, signed=signed) for silo, peer in chosen.items()}


def keyed(signed: bytes, key: bytes | None) -> bytes:
    """Return a signed request with the key that is for its receiver."""
    return signed if key is None else _KEYED + key + signed


def unkeyed(frame: bytes) -> tuple[bytes, bytes | None]:
    """Return the signed request, and the key that came with it. Raises nothing."""
    if not frame.startswith(_KEYED):
        return frame, None
    start = len(_KEYED) + LOCKED_BYTES
    return frame[start:], frame[len(_KEYED) : start]


def open_request(trust: Trust, signed: bytes) -> AnyQuestion | Bundle | SealedRequest:
    """Return the request if the silo that it names signed it. Raises `MessageInvalid` or `SignatureInvalid`."""
    verified = trust.verify_session(signed, context=CONTEXT, limit=SealedRequest.max_bytes)
    request = decode(verified.payload, SealedRequest, SearchRequest, Bundle, PrivateRequest, CardsRequest, CountRequest)
    if request.asker != verified.name or not verified.signer.is_silo:
        raise SignatureInvalid(
            f"the request says that {request.asker} asks, but {verified.name[:64]!r} signed it, "
            f"{'a silo' if verified.signer.is_silo else 'which is no silo'}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    return request


def reveal(identity: Identity, signed: bytes, sealed: SealedRequest, key: bytes | None) -> AnyQuestion | Bundle | None:
    """Return what a verified request conceals; None if its key is not for this process.

    Raises `MessageInvalid`, also for one in another's name, or `SignatureInvalid`.
    """
    asker = identity.trust.session_of(signed, limit=SealedRequest.max_bytes)
    opened = identity.session.unlock(key, asker, signed=signed) if key else None
    if opened is None:
        return None
    request = decode(decrypted(sealed.content, opened), SearchRequest, Bundle, PrivateRequest, CardsRequest, CountRequest)
    if request.asker != sealed.asker:
        raise MessageInvalid(
            f"a request of {request.asker} within one of {sealed.asker}", where="request", remedy="Nothing of it was used."
        )
    return request


def unbundled(bundle: Bundle, content: bytes) -> SearchRequest:
    """Return one request of a bundle. Raises `MessageInvalid`, also for one in another's name."""
    request = decode(content, SearchRequest)
    if request.asker != bundle.asker:
        raise MessageInvalid(
            f"a request of {request.asker} in a bundle of {bundle.asker}", where="bundle", remedy="Nothing of it was used."
        )
    return request


def peek_request(signed: bytes) -> SearchRequest | Bundle | SealedRequest:
    """Return the request without verifying who signed it: for the broker, which only relays. Raises alike."""
    return decode(unsigned_payload(signed, limit=SealedRequest.max_bytes), SealedRequest, SearchRequest, Bundle)


def seal_reply(identity: Identity, frame: bytes, reply: Message) -> bytes:
    """Return the reply to the signed request `frame`, as its asker alone can read it.

    A refusal of what nobody known has signed is itself signed in the open: there is nobody to seal it for.
    """
    frame = unkeyed(frame)[0]
    context = _REPLY_CONTEXT + sha256(frame).digest()
    try:
        asker = identity.trust.session_of(frame, limit=SealedRequest.max_bytes)
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
    writer = None
    if is_sealed(reply):
        verified, writer = identity.trust.unseal(reply, identity.session, context=context, question=frame, limit=limit)
    else:
        verified = identity.trust.verify_session(reply, context=context, limit=limit)
        expected = (Refusal,)
    if verified.name != silo or not verified.signer.is_silo:
        raise SignatureInvalid(
            f"a reply in the name of {silo} was signed by {verified.name[:64]!r}",
            remedy="Nothing of the message was used. Ask the consortium's operator about this participant.",
        )
    if writer is not None:
        identity.peers[silo] = writer
    return decode(verified.payload, *expected)


def is_question(frame: bytes) -> bool:
    """Return whether a frame has the form of a question: a parcel, or a signed message with its key or without.

    Who signed it, and what it says, is for its receiver to verify.
    """
    if is_parcel(frame):
        return True
    try:
        unsigned_payload(unkeyed(frame)[0], limit=SealedRequest.max_bytes)
    except MessageInvalid:
        return False
    return True


def budget_of(frame: bytes) -> int:
    """Return the milliseconds a question may take, in whatever it comes, or a parcel of them; a default if it says none."""
    budget = None
    try:
        if is_parcel(frame):
            return max((content.budget_ms for content in unpack(frame).contents), default=_USUAL_MS)
        fields = msgpack.unpackb(unkeyed(frame)[0], max_ext_len=0)
        budget = (msgpack.unpackb(fields["payload"], max_ext_len=0) if "payload" in fields else fields).get("budget_ms")
    except Exception:  # noqa: BLE001  (a stranger's bytes: whoever serves the frame says what is wrong with it)
        budget = None
    return budget if type(budget) is int and 0 < budget <= MOST_MS else _USUAL_MS
