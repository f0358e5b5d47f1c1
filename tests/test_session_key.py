"""A key of a day: whom it may speak for, for how long, and that nothing else passes for it."""

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.errors import MessageInvalid, SignatureInvalid
from silo_app.search.messages import MAX_SILOS
from silo_app.session_key import VOUCHER_LIMIT, SessionKeys, Vouchers, unsigned_payload

CONTEXT = b"siloscope/test/1"
LIMIT = 1000
DAY = 86_400


class Clock:
    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def vouch(content):
    """Stand in for a certificate's signature."""
    return b"north:" + content


def believe(voucher):
    name, _, content = voucher.partition(b":")
    if name != b"north":
        raise SignatureInvalid("not of this federation", remedy="none")
    return name.decode(), content


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(clock):
    return SessionKeys(vouch, clock=clock)


@pytest.fixture
def vouchers(clock):
    return Vouchers(believe, clock=clock)


def test_what_was_signed_is_believed(keys, vouchers):
    signed = keys.sign(b"hello", context=CONTEXT)
    assert vouchers.verify(signed, context=CONTEXT, limit=LIMIT) == ("north", b"hello")
    assert unsigned_payload(signed, limit=LIMIT) == b"hello"


def test_a_signature_is_for_one_purpose(keys, vouchers):
    with pytest.raises(SignatureInvalid):
        vouchers.verify(keys.sign(b"hello", context=CONTEXT), context=b"other", limit=LIMIT)


def test_a_key_is_vouched_for_once_and_exchanged_after_half_a_day(clock):
    vouched = []
    keys = SessionKeys(lambda content: vouched.append(content) or vouch(content), clock=clock)
    vouchers = Vouchers(believe, clock=clock)
    for seconds in (0, 10, DAY // 2 - 1, DAY // 2 + 1, DAY):
        clock.now = 1_000_000 + seconds
        assert vouchers.verify(keys.sign(b"x", context=CONTEXT), context=CONTEXT, limit=LIMIT)[1] == b"x"
    assert len(vouched) == 2


def test_a_clock_that_was_set_back_makes_a_new_key(keys, vouchers, clock):
    keys.sign(b"x", context=CONTEXT)
    clock.now -= 10 * DAY
    assert vouchers.verify(keys.sign(b"x", context=CONTEXT), context=CONTEXT, limit=LIMIT)[1] == b"x"


@pytest.mark.parametrize(("seconds", "good"), [(-301, False), (-299, True), (DAY + 299, True), (DAY + 301, False)])
def test_a_key_is_for_its_day(seconds, good, keys, vouchers, clock):
    signed = keys.sign(b"x", context=CONTEXT)
    clock.now += seconds
    if good:
        vouchers.verify(signed, context=CONTEXT, limit=LIMIT)
        return
    with pytest.raises(SignatureInvalid, match="day"):
        vouchers.verify(signed, context=CONTEXT, limit=LIMIT)


def test_a_voucher_is_verified_again_every_minute(keys, clock):
    asked = []

    def noted(voucher):
        asked.append(voucher)
        return believe(voucher)

    vouchers = Vouchers(noted, clock=clock)
    signed = keys.sign(b"x", context=CONTEXT)
    for _ in range(3):
        vouchers.verify(signed, context=CONTEXT, limit=LIMIT)
    assert len(asked) == 1
    clock.now += 61
    vouchers.verify(signed, context=CONTEXT, limit=LIMIT)
    assert len(asked) == 2


def message(voucher, key, payload=b"x"):
    honest = SessionKeys(lambda _: voucher, clock=Clock())
    honest._current()
    object.__setattr__(honest._session, "key", key)
    return honest.sign(payload, context=CONTEXT)


def content(key, begins=1_000_000, ends=1_000_000 + DAY):
    return msgpack.packb({"key": key.public_key().public_bytes_raw(), "from": begins, "until": ends})


@pytest.mark.parametrize(
    "voucher",
    [
        lambda key: b"stranger:" + content(key),
        lambda key: b"north:" + content(key, ends=1_000_000 + 2 * DAY),
        lambda key: b"north:" + content(key, ends=1_000_000),
        lambda key: b"north:" + content(key, begins=1_000_000.0),
        lambda key: b"north:" + content(Ed25519PrivateKey.generate()),
        lambda _: b"north:",
        lambda _: b"north:" + msgpack.packb({"key": b"short", "from": 1, "until": 2}),
        lambda _: b"north:" + msgpack.packb([1, 2, 3]),
    ],
)
def test_a_voucher_that_is_not_in_order_is_refused(voucher, vouchers):
    key = Ed25519PrivateKey.generate()
    with pytest.raises(SignatureInvalid):
        vouchers.verify(message(voucher(key), key), context=CONTEXT, limit=LIMIT)


@pytest.mark.parametrize("signed", [b"", b"x", b"\x80", b"\xc1", b"\x93\x01\x02\x03", b"x" * 200_000])
def test_what_is_no_signed_message_is_refused(signed, vouchers):
    with pytest.raises(MessageInvalid):
        vouchers.verify(signed, context=CONTEXT, limit=LIMIT)


def test_too_large_parts_are_refused(keys, vouchers):
    with pytest.raises(MessageInvalid):
        vouchers.verify(keys.sign(b"x" * (LIMIT + 1), context=CONTEXT), context=CONTEXT, limit=LIMIT)
    key = Ed25519PrivateKey.generate()
    with pytest.raises(MessageInvalid):
        vouchers.verify(message(b"north:" + b"x" * VOUCHER_LIMIT, key), context=CONTEXT, limit=LIMIT)


def test_many_vouchers_are_not_kept_for_ever(vouchers, monkeypatch):
    monkeypatch.setattr("silo_app.session_key._MOST_KNOWN", 64)
    for _ in range(200):
        vouchers.verify(SessionKeys(vouch, clock=Clock()).sign(b"x", context=CONTEXT), context=CONTEXT, limit=LIMIT)
    assert len(vouchers._known) <= 64


def test_the_vouchers_of_the_largest_federation_are_verified_once_each(clock):
    asked = []

    def noted(voucher):
        asked.append(voucher)
        return believe(voucher)

    vouchers = Vouchers(noted, clock=clock)
    replies = [SessionKeys(vouch, clock=clock).sign(b"x", context=CONTEXT) for _ in range(MAX_SILOS)]
    for _ in range(2):
        for signed in replies:
            vouchers.verify(signed, context=CONTEXT, limit=LIMIT)
    assert len(asked) == MAX_SILOS


_CLOCK = Clock()
_SIGNED = SessionKeys(vouch, clock=_CLOCK).sign(b"payload", context=CONTEXT)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_change_of_a_signed_message_is_believed(data):
    where = data.draw(st.integers(0, len(_SIGNED) - 1))
    changed = bytes([*_SIGNED[:where], data.draw(st.integers(0, 255)), *_SIGNED[where + 1 :]])
    if data.draw(st.booleans()):
        changed = _SIGNED[:where]
    if changed == _SIGNED:
        return
    with pytest.raises((MessageInvalid, SignatureInvalid)):
        Vouchers(believe, clock=_CLOCK).verify(changed, context=CONTEXT, limit=LIMIT)
