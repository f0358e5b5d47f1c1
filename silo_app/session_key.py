"""Messages that cost little: keys that live in one process for a day, and that a certificate's key vouches for.

An RSA signature takes ten times as long as one of Ed25519 (RFC 8032), and every search needs many. So a process makes two
key pairs, has its certificate's key sign the public halves with the day that they are for (`vouch`), and keeps the other
halves to itself. A message carries the voucher along; whoever reads it checks both.

Questions, which everybody is asked, are signed with the one pair; what they say is encrypted under a key of their own, which
goes to each reader encrypted under what the two have agreed on (`lock`). A reply is for its asker alone: it is encrypted
under what the other pairs of the two agree on (X25519, RFC 7748; HKDF, RFC 5869; AES-256-GCM). Nobody else can read it, and
since nobody else can make it either, it needs no signature: whoever relays it can neither read, forge nor change it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

import msgpack
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from silo_app.errors import MessageInvalid, SignatureInvalid

__all__ = [
    "LOCKED_BYTES",
    "VOUCHER_LIMIT",
    "SessionKeys",
    "Vouched",
    "Vouchers",
    "decrypted",
    "encrypted",
    "is_sealed",
    "unsigned_payload",
]

_W = TypeVar("_W")

VOUCHER_LIMIT = 16 * 1024
_SIGNATURE_BYTES = 64
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_BYTES = 32
LOCKED_BYTES = _NONCE_BYTES + _KEY_BYTES + _TAG_BYTES
"""Of a key that is locked for one reader."""
_REPLIES, _QUESTIONS = b"siloscope/sealed/1\0", b"siloscope/asked/1\0"
_FOR_S = 86_400
_RENEWED_AFTER_S = _FOR_S // 2
_CLOCKS_DIFFER_S = 300
_BELIEVED_S = 60.0
"""For so long a voucher that was verified is not verified again; a certificate's end is noticed that much later."""
_MOST_KNOWN = 2048
"""More than a federation has silos: with fewer, each would be verified anew with every query."""
_REMEDY = "Nothing was used. Compare the versions of siloscope on both sides, and their clocks."


@dataclass(frozen=True, slots=True)
class _Session:
    key: Ed25519PrivateKey
    box: X25519PrivateKey
    voucher: bytes
    renewed_at: float


@dataclass(frozen=True, slots=True)
class Vouched(Generic[_W]):
    """The public keys of another's process, and who vouches for them."""

    who: _W
    voucher: bytes
    key: Ed25519PublicKey
    box: X25519PublicKey
    begins: int
    ends: int
    verified_at: float


class SessionKeys:
    """The private side in one process; safe from many threads."""

    def __init__(self, vouch: Callable[[bytes], bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._vouch = vouch
        self._clock = clock
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._before: _Session | None = None
        self._agreed: dict[tuple[bytes, bytes, bytes], AESGCM] = {}
        """Of a purpose and a pair of vouchers, asker's and the other's: to agree costs as much as a signature, and each
        message then little."""

    @property
    def voucher(self) -> bytes:
        """What others need to know of this process, to write to it before it has written to them."""
        return self._current().voucher

    def sign(self, payload: bytes, *, context: bytes) -> bytes:
        """Return `payload` with a signature for the purpose `context`, and the voucher for the key that made it."""
        session = self._current()
        signature = session.key.sign(_statement(context, session.voucher, payload))
        return bytes(msgpack.packb({"voucher": session.voucher, "payload": payload, "signature": signature}))

    def seal(self, payload: bytes, reader: "Vouched[Any]", *, context: bytes) -> bytes:
        """Return `payload`, for the purpose `context`, as only `reader`'s process can read it."""
        session = self._current()
        key = self._key(_REPLIES, (reader.voucher, session.voucher), session.box, reader.box)
        nonce = os.urandom(_NONCE_BYTES)  # random: fewer than 2^32 messages of one key and one day
        return bytes(msgpack.packb({"voucher": session.voucher, "sealed": nonce + key.encrypt(nonce, payload, context)}))

    def unseal(self, sealed: bytes, writer: "Vouched[Any]", *, context: bytes, asked_with: bytes) -> bytes:
        """Return what `writer`'s process sealed for this one, which had asked with the voucher `asked_with`.

        Raises `SignatureInvalid` if it was sealed by or for another, for another purpose, or was changed.
        """
        with self._lock:  # a reply may come after its question's keys were exchanged for new ones
            kept = [one for one in (self._session, self._before) if one is not None and one.voucher == asked_with]
        if not kept:
            raise _distrusted("a reply is to a question that this process did not ask")
        key = self._key(_REPLIES, (asked_with, writer.voucher), kept[0].box, writer.box)
        try:
            return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise _distrusted("a sealed message is not of this content, or is not for this reader") from None

    def lock(self, content: bytes, reader: "Vouched[Any]", *, signed: bytes) -> bytes:
        """Return the key `content`, bound to the message `signed` that it opens, as only `reader`'s process can read it."""
        session = self._current()
        key = self._key(_QUESTIONS, (session.voucher, reader.voucher), session.box, reader.box)
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + key.encrypt(nonce, content, sha256(signed).digest())

    def unlock(self, locked: bytes, asker: "Vouched[Any]", *, signed: bytes) -> bytes | None:
        """Return the key that `asker`'s process locked for this one with a message; None if it is not for this process.

        It may have been locked for the keys that this process had before.
        """
        self._current()
        with self._lock:
            mine = [one for one in (self._session, self._before) if one is not None]
        for session in mine:
            key = self._key(_QUESTIONS, (asker.voucher, session.voucher), session.box, asker.box)
            with contextlib.suppress(InvalidTag, ValueError):
                return key.decrypt(locked[:_NONCE_BYTES], locked[_NONCE_BYTES:], sha256(signed).digest())
        return None

    def _key(self, purpose: bytes, vouchers: tuple[bytes, bytes], mine: X25519PrivateKey, theirs: X25519PublicKey) -> AESGCM:
        if (known := self._agreed.get((purpose, *vouchers))) is not None:
            return known
        try:
            shared = mine.exchange(theirs)
        except ValueError:  # a public key of low order (RFC 7748, section 6.1)
            raise _distrusted("a voucher has a key with which nothing can be agreed") from None
        info = purpose + b"".join(sha256(voucher).digest() for voucher in vouchers)
        key = AESGCM(HKDF(hashes.SHA256(), _KEY_BYTES, None, info).derive(shared))
        if len(self._agreed) >= _MOST_KNOWN:
            self._agreed.clear()
        self._agreed[purpose, *vouchers] = key
        return key

    def _current(self) -> _Session:
        with self._lock:
            now = self._clock()
            if self._session is None or not 0 <= self._session.renewed_at - now <= _RENEWED_AFTER_S:
                key, box = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
                content = {
                    "key": key.public_key().public_bytes_raw(),
                    "box": box.public_key().public_bytes_raw(),
                    "from": int(now),
                    "until": int(now) + _FOR_S,
                }
                voucher = self._vouch(msgpack.packb(content))
                self._session, self._before = _Session(key, box, voucher, now + _RENEWED_AFTER_S), self._session
            return self._session


class Vouchers(Generic[_W]):
    """The verifying side; remembers the vouchers that it found to be good. Safe from many threads.

    `believe` takes a voucher, and returns who signed it and what; it raises `MessageInvalid` or `SignatureInvalid`.
    """

    def __init__(self, believe: Callable[[bytes], tuple[_W, bytes]], *, clock: Callable[[], float] = time.time) -> None:
        self._believe = believe
        self._clock = clock
        self._known: dict[bytes, Vouched[_W]] = {}

    def verify(self, signed: bytes, *, context: bytes, limit: int) -> tuple[_W, bytes]:
        """Return who signed `signed`, made by `SessionKeys.sign` with the same context, and its payload.

        Raises `MessageInvalid` for what is no signed message, `SignatureInvalid` for what does not verify.
        """
        voucher, payload, signature = _unpack(signed, limit)
        vouched = self._of_today(voucher)
        try:
            vouched.key.verify(signature, _statement(context, voucher, payload))
        except InvalidSignature:
            raise _distrusted("the signature of a message is not of this content") from None
        return vouched.who, payload

    def unseal(
        self, message: bytes, mine: SessionKeys, *, context: bytes, question: bytes, limit: int
    ) -> tuple[Vouched[_W], bytes]:
        """Return whose keys sealed `message` as the reply to the signed `question` of `mine`, and what it says.

        Raises `MessageInvalid` for what is no sealed message, `SignatureInvalid` for what cannot be believed.
        """
        voucher, sealed = _unpack_sealed(message, limit)
        vouched = self._of_today(voucher)
        asked_with = _unpack(question, len(question))[0]
        return vouched, mine.unseal(sealed, vouched, context=context, asked_with=asked_with)

    def signer_of(self, signed: bytes, *, limit: int) -> Vouched[_W]:
        """Return whose keys come with a signed message, whether or not it is theirs. Raises as `verify` does."""
        return self._of_today(_unpack(signed, limit)[0])

    def vouched(self, voucher: bytes) -> Vouched[_W]:
        """Return whose keys a voucher is for. Raises as `verify` does."""
        if len(voucher) > VOUCHER_LIMIT:
            raise MessageInvalid("a voucher is larger than any may be", remedy=_REMEDY)
        return self._of_today(voucher)

    def _of_today(self, voucher: bytes) -> Vouched[_W]:
        vouched = self._vouched(voucher)
        if not vouched.begins - _CLOCKS_DIFFER_S <= self._clock() <= vouched.ends + _CLOCKS_DIFFER_S:
            raise _distrusted("the key of a message is not of this day")
        return vouched

    def _vouched(self, voucher: bytes) -> Vouched[_W]:
        now = self._clock()
        known = self._known.get(voucher)
        if known is not None and 0 <= now - known.verified_at <= _BELIEVED_S:
            return known
        who, content = self._believe(voucher)
        vouched = _read(who, voucher, content, now)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[voucher] = vouched
        return vouched


def unsigned_payload(signed: bytes, *, limit: int) -> bytes:
    """Return what a signed message says without asking who signed it: for a relay. Raises `MessageInvalid`."""
    return _unpack(signed, limit)[1]


def encrypted(payload: bytes) -> tuple[bytes, bytes]:
    """Return `payload` under a new key, and the key (AES-256-GCM; a key is used once, so the nonce is fixed)."""
    key = os.urandom(_KEY_BYTES)
    return AESGCM(key).encrypt(bytes(_NONCE_BYTES), payload, None), key


def decrypted(content: bytes, key: bytes) -> bytes:
    """Return what was `encrypted`. Raises `SignatureInvalid` for another key or content."""
    try:
        return AESGCM(key).decrypt(bytes(_NONCE_BYTES), content, None)
    except (InvalidTag, ValueError):
        raise _distrusted("an encrypted question does not open with its key") from None


def is_sealed(message: bytes) -> bool:
    """Return whether a message is sealed, and not signed in the open; of what is neither, False."""
    fields = _fields(message, len(message))
    return fields is not None and "sealed" in fields


def _read(who: _W, voucher: bytes, content: bytes, now: float) -> Vouched[_W]:
    try:
        fields = msgpack.unpackb(content, max_map_len=4, max_array_len=0, max_ext_len=0)
        begins, ends = fields["from"], fields["until"]
        key, box = Ed25519PublicKey.from_public_bytes(fields["key"]), X25519PublicKey.from_public_bytes(fields["box"])
    except Exception:  # noqa: BLE001  (whoever signed it: another version, or worse)
        raise _distrusted("a voucher cannot be read") from None
    if not (type(begins) is type(ends) is int and 0 < ends - begins <= _FOR_S):
        raise _distrusted("a voucher is not for one day")
    return Vouched(who, voucher, key, box, begins, ends, now)


def _statement(context: bytes, voucher: bytes, payload: bytes) -> bytes:
    """Return what is really signed: purpose, voucher and payload, each of a fixed or stated length."""
    parts = [b"siloscope/session/1\0", len(context).to_bytes(2, "big"), context]
    return b"".join([*parts, sha256(voucher).digest(), sha256(payload).digest()])


def _unpack(signed: bytes, limit: int) -> tuple[bytes, bytes, bytes]:
    fields = _parts(signed, {"voucher": VOUCHER_LIMIT, "payload": limit, "signature": _SIGNATURE_BYTES})
    return fields["voucher"], fields["payload"], fields["signature"]


def _unpack_sealed(message: bytes, limit: int) -> tuple[bytes, bytes]:
    fields = _parts(message, {"voucher": VOUCHER_LIMIT, "sealed": _NONCE_BYTES + limit + _TAG_BYTES})
    return fields["voucher"], fields["sealed"]


def _parts(message: bytes, sizes: dict[str, int]) -> dict[str, bytes]:
    """Return the parts of a message, each of bytes and of its size at most. Raises `MessageInvalid`."""
    fields = _fields(message, sum(sizes.values()) + 256)
    if (
        fields is None
        or fields.keys() != sizes.keys()
        or any(not isinstance(fields[name], bytes) or len(fields[name]) > size for name, size in sizes.items())
    ):
        raise MessageInvalid("a message is damaged, too large or of another version", remedy=_REMEDY)
    return fields


def _fields(message: bytes, limit: int) -> dict[str, Any] | None:
    content = None
    if len(message) <= limit:
        with contextlib.suppress(Exception):  # msgpack raises many kinds on foreign bytes
            content = msgpack.unpackb(message, max_map_len=3, max_array_len=0, max_ext_len=0)
    return content if isinstance(content, dict) else None


def _distrusted(problem: str) -> SignatureInvalid:
    return SignatureInvalid(problem, remedy=_REMEDY)
