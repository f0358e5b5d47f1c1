"""Signatures that cost little: a key that lives in one process for a day, and that a certificate's key vouches for.

An RSA signature takes ten times as long as one of Ed25519 (RFC 8032), and every reply to a search needs one. So a process
makes a key pair, has its certificate's key sign the public half with the day that it is for (`vouch`), and signs messages
with the other half, which is never written down. A message carries the voucher along; whoever verifies checks both.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from silo_app.errors import MessageInvalid, SignatureInvalid

__all__ = ["VOUCHER_LIMIT", "SessionKeys", "Vouchers", "unsigned_payload"]

_W = TypeVar("_W")

VOUCHER_LIMIT = 16 * 1024
_SIGNATURE_BYTES = 64
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
    voucher: bytes
    renewed_at: float


class SessionKeys:
    """The signing side in one process; safe from many threads."""

    def __init__(self, vouch: Callable[[bytes], bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._vouch = vouch
        self._clock = clock
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def sign(self, payload: bytes, *, context: bytes) -> bytes:
        """Return `payload` with a signature for the purpose `context`, and the voucher for the key that made it."""
        session = self._current()
        signature = session.key.sign(_statement(context, session.voucher, payload))
        return bytes(msgpack.packb({"voucher": session.voucher, "payload": payload, "signature": signature}))

    def _current(self) -> _Session:
        with self._lock:
            now = self._clock()
            if self._session is None or not 0 <= self._session.renewed_at - now <= _RENEWED_AFTER_S:
                key = Ed25519PrivateKey.generate()
                content = {"key": key.public_key().public_bytes_raw(), "from": int(now), "until": int(now) + _FOR_S}
                self._session = _Session(key, self._vouch(msgpack.packb(content)), now + _RENEWED_AFTER_S)
            return self._session


@dataclass(frozen=True, slots=True)
class _Voucher(Generic[_W]):
    who: _W
    key: Ed25519PublicKey
    begins: int
    ends: int
    verified_at: float


class Vouchers(Generic[_W]):
    """The verifying side; remembers the vouchers that it found to be good. Safe from many threads.

    `believe` takes a voucher, and returns who signed it and what; it raises `MessageInvalid` or `SignatureInvalid`.
    """

    def __init__(self, believe: Callable[[bytes], tuple[_W, bytes]], *, clock: Callable[[], float] = time.time) -> None:
        self._believe = believe
        self._clock = clock
        self._known: dict[bytes, _Voucher[_W]] = {}

    def verify(self, signed: bytes, *, context: bytes, limit: int) -> tuple[_W, bytes]:
        """Return who signed `signed`, made by `SessionKeys.sign` with the same context, and its payload.

        Raises `MessageInvalid` for what is no signed message, `SignatureInvalid` for what does not verify.
        """
        voucher, payload, signature = _unpack(signed, limit)
        vouched = self._vouched(voucher)
        now = self._clock()
        if not vouched.begins - _CLOCKS_DIFFER_S <= now <= vouched.ends + _CLOCKS_DIFFER_S:
            raise _distrusted("the key of a signed message is not of this day")
        try:
            vouched.key.verify(signature, _statement(context, voucher, payload))
        except InvalidSignature:
            raise _distrusted("the signature of a message is not of this content") from None
        return vouched.who, payload

    def _vouched(self, voucher: bytes) -> _Voucher[_W]:
        now = self._clock()
        known = self._known.get(voucher)
        if known is not None and 0 <= now - known.verified_at <= _BELIEVED_S:
            return known
        who, content = self._believe(voucher)
        vouched = _read(who, content, now)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[voucher] = vouched
        return vouched


def unsigned_payload(signed: bytes, *, limit: int) -> bytes:
    """Return what a signed message says without asking who signed it: for a relay. Raises `MessageInvalid`."""
    return _unpack(signed, limit)[1]


def _read(who: _W, content: bytes, now: float) -> _Voucher[_W]:
    try:
        fields = msgpack.unpackb(content, max_map_len=3, max_array_len=0, max_ext_len=0)
        begins, ends = fields["from"], fields["until"]
        key = Ed25519PublicKey.from_public_bytes(fields["key"])
    except Exception:  # noqa: BLE001  (whoever signed it: another version, or worse)
        raise _distrusted("a voucher cannot be read") from None
    if not (type(begins) is type(ends) is int and 0 < ends - begins <= _FOR_S):
        raise _distrusted("a voucher is not for one day")
    return _Voucher(who, key, begins, ends, now)


def _statement(context: bytes, voucher: bytes, payload: bytes) -> bytes:
    """Return what is really signed: purpose, voucher and payload, each of a fixed or stated length."""
    parts = [b"siloscope/session/1\0", len(context).to_bytes(2, "big"), context]
    return b"".join([*parts, sha256(voucher).digest(), sha256(payload).digest()])


def _unpack(signed: bytes, limit: int) -> tuple[bytes, bytes, bytes]:
    sizes = {"voucher": VOUCHER_LIMIT, "payload": limit, "signature": _SIGNATURE_BYTES}
    content = None
    if len(signed) <= sum(sizes.values()) + 256:
        with contextlib.suppress(Exception):  # msgpack raises many kinds on foreign bytes
            content = msgpack.unpackb(signed, max_map_len=3, max_array_len=0, max_ext_len=0)
    if (
        not isinstance(content, dict)
        or content.keys() != sizes.keys()
        or any(not isinstance(content[name], bytes) or len(content[name]) > size for name, size in sizes.items())
    ):
        raise MessageInvalid("a signed message is damaged, too large or of another version", remedy=_REMEDY)
    return content["voucher"], content["payload"], content["signature"]


def _distrusted(problem: str) -> SignatureInvalid:
    return SignatureInvalid(problem, remedy=_REMEDY)
