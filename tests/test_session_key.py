"""A key of a day: whom it may speak for, for how long, and that nothing else passes for it."""

from hashlib import sha256

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.errors import MessageInvalid, SignatureInvalid
from silo_app.search.messages import MAX_SILOS
from silo_app.session_key import (
    LOCKED_BYTES,
    VOUCHER_LIMIT,
    SessionKeys,
    Vouchers,
    decrypted,
    encrypted,
    is_sealed,
    unsigned_payload,
)

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


class TestSealed:
    """A question of `north`, and the reply of `south`, who vouches alike: nobody else reads or makes it."""

    @pytest.fixture
    def north(self, clock):
        return SessionKeys(vouch, clock=clock)

    @pytest.fixture
    def south(self, clock):
        return SessionKeys(lambda content: b"south:" + content, clock=clock)

    @pytest.fixture
    def vouchers(self, clock):
        def both(voucher):
            name, _, content = voucher.partition(b":")
            if name not in {b"north", b"south"}:
                raise SignatureInvalid("not of this federation", remedy="none")
            return name.decode(), content

        return Vouchers(both, clock=clock)

    @pytest.fixture
    def exchange(self, north, south, vouchers):
        question = north.sign(b"who?", context=CONTEXT)
        reply = south.seal(b"a secret", vouchers.signer_of(question, limit=LIMIT), context=CONTEXT)
        return question, reply

    def test_the_asker_reads_it(self, north, vouchers, exchange):
        question, reply = exchange
        assert is_sealed(reply)
        assert not is_sealed(question)
        writer, said = vouchers.unseal(reply, north, context=CONTEXT, question=question, limit=LIMIT)
        assert (writer.who, said) == ("south", b"a secret")

    def test_it_says_nothing_to_others_and_never_the_same(self, north, south, vouchers, exchange):
        question, reply = exchange
        again = south.seal(b"a secret", vouchers.signer_of(question, limit=LIMIT), context=CONTEXT)
        assert b"secret" not in reply
        assert again != reply
        stranger = SessionKeys(vouch, clock=Clock())
        asked = stranger.sign(b"who?", context=CONTEXT)
        for keys, asked_with in ((stranger, question), (stranger, asked), (south, question)):
            with pytest.raises(SignatureInvalid):
                vouchers.unseal(reply, keys, context=CONTEXT, question=asked_with, limit=LIMIT)

    def test_it_is_for_one_purpose(self, north, vouchers, exchange):
        question, reply = exchange
        with pytest.raises(SignatureInvalid):
            vouchers.unseal(reply, north, context=b"other", question=question, limit=LIMIT)

    def test_an_asker_cannot_pass_its_own_words_for_those_of_another(self, north, vouchers, exchange):
        question, reply = exchange
        voucher = msgpack.unpackb(reply)["voucher"]
        own = msgpack.unpackb(north.seal(b"lie", vouchers.signer_of(question, limit=LIMIT), context=CONTEXT))["sealed"]
        with pytest.raises(SignatureInvalid):
            vouchers.unseal(
                msgpack.packb({"voucher": voucher, "sealed": own}), north, context=CONTEXT, question=question, limit=LIMIT
            )

    @pytest.mark.parametrize(("hours", "read"), [(0, True), (13, True), (26, False)])
    def test_a_reply_may_come_after_the_keys_were_exchanged(self, hours, read, north, vouchers, exchange, clock):
        question, reply = exchange
        for _ in range(2 if hours > 24 else 1):
            clock.now += hours * 3600 / (2 if hours > 24 else 1)
            north.sign(b"next", context=CONTEXT)
        if read:
            assert vouchers.unseal(reply, north, context=CONTEXT, question=question, limit=LIMIT)[1] == b"a secret"
            return
        with pytest.raises(SignatureInvalid):
            vouchers.unseal(reply, north, context=CONTEXT, question=question, limit=LIMIT)

    def test_a_key_of_low_order_agrees_with_nobody(self, north, south):
        weak = vouch(content(Ed25519PrivateKey.generate(), box=bytes(32)))
        reader = Vouchers(believe, clock=Clock()).signer_of(message(weak, Ed25519PrivateKey.generate()), limit=LIMIT)
        with pytest.raises(SignatureInvalid, match="agreed"):
            south.seal(b"x", reader, context=CONTEXT)

    def test_keys_that_were_agreed_are_not_kept_for_ever(self, south, monkeypatch):
        monkeypatch.setattr("silo_app.session_key._MOST_KNOWN", 8)
        for _ in range(30):
            question = SessionKeys(vouch, clock=Clock()).sign(b"x", context=CONTEXT)
            south.seal(b"x", Vouchers(believe, clock=Clock()).signer_of(question, limit=LIMIT), context=CONTEXT)
        assert len(south._agreed) <= 8

    def test_too_large_and_foreign_replies_are_refused(self, north, vouchers, exchange):
        question, reply = exchange
        for wrong in (b"", b"noise", question, reply[:-1], b"x" * 100_000):
            with pytest.raises((MessageInvalid, SignatureInvalid)):
                vouchers.unseal(wrong, north, context=CONTEXT, question=question, limit=LIMIT)
        with pytest.raises(MessageInvalid):
            vouchers.unseal(reply, north, context=CONTEXT, question=question, limit=2)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_no_change_of_a_sealed_message_is_believed(self, data):
        where = data.draw(st.integers(0, len(_SEALED) - 1))
        changed = bytes([*_SEALED[:where], data.draw(st.integers(0, 255)), *_SEALED[where + 1 :]])
        if changed == _SEALED:
            return
        with pytest.raises((MessageInvalid, SignatureInvalid)):
            Vouchers(believe, clock=_CLOCK).unseal(changed, _NORTH, context=CONTEXT, question=_SIGNED, limit=LIMIT)


def message(voucher, key, payload=b"x"):
    honest = SessionKeys(lambda _: voucher, clock=Clock())
    honest._current()
    object.__setattr__(honest._session, "key", key)
    return honest.sign(payload, context=CONTEXT)


def content(key, begins=1_000_000, ends=1_000_000 + DAY, box=None):
    box = X25519PrivateKey.generate().public_key().public_bytes_raw() if box is None else box
    return msgpack.packb({"key": key.public_key().public_bytes_raw(), "box": box, "from": begins, "until": ends})


@pytest.mark.parametrize(
    "voucher",
    [
        lambda key: b"stranger:" + content(key),
        lambda key: b"north:" + content(key, ends=1_000_000 + 2 * DAY),
        lambda key: b"north:" + content(key, ends=1_000_000),
        lambda key: b"north:" + content(key, begins=1_000_000.0),
        lambda key: b"north:" + content(Ed25519PrivateKey.generate()),
        lambda key: b"north:" + content(key, box=b"short"),
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


class TestLocked:
    """The key of a message of `north`, locked for `south`: no other process opens it, and it opens no other message."""

    MESSAGE, KEY = b"a signed message", bytes(range(32))

    @pytest.fixture
    def met(self, clock):
        """Make a process, and return it with what others know of it."""

        def make():
            keys = SessionKeys(vouch, clock=clock)
            return keys, Vouchers(believe, clock=clock).vouched(keys.voucher)

        return make

    @pytest.fixture
    def pair(self, met):
        return met(), met()

    def test_its_reader_opens_it(self, pair):
        (north, asker), (south, reader) = pair
        locked = north.lock(self.KEY, reader, signed=self.MESSAGE)
        assert len(locked) == LOCKED_BYTES
        assert self.KEY not in locked
        assert south.unlock(locked, asker, signed=self.MESSAGE) == self.KEY

    def test_nobody_else_does_and_with_no_other_message(self, pair, met):
        (north, asker), (south, reader) = pair
        locked = north.lock(self.KEY, reader, signed=self.MESSAGE)
        other, of_other = met()
        assert other.unlock(locked, asker, signed=self.MESSAGE) is None
        assert south.unlock(locked, of_other, signed=self.MESSAGE) is None
        assert south.unlock(locked, asker, signed=b"another") is None
        for wrong in (b"", locked[:-1], b"x" * LOCKED_BYTES):
            assert south.unlock(wrong, asker, signed=self.MESSAGE) is None

    def test_it_may_come_after_the_readers_keys_were_exchanged(self, pair, clock):
        (north, asker), (south, reader) = pair
        locked = north.lock(self.KEY, reader, signed=self.MESSAGE)
        clock.now += 13 * 3600
        assert south.unlock(locked, asker, signed=self.MESSAGE) == self.KEY

    def test_a_reply_is_no_locked_key(self, pair):
        """What the two agree on for replies differs from what they agree on for questions."""
        (north, asker), (south, reader) = pair
        signed = north.sign(b"who?", context=CONTEXT)
        reply = msgpack.unpackb(south.seal(self.KEY, asker, context=sha256(signed).digest()))["sealed"]
        assert south.unlock(reply, asker, signed=signed) is None
        assert north.unlock(reply, reader, signed=signed) is None

    def test_a_key_of_low_order_agrees_with_nobody(self, pair):
        (north, _), _ = pair
        weak = Vouchers(believe, clock=Clock()).vouched(vouch(content(Ed25519PrivateKey.generate(), box=bytes(32))))
        with pytest.raises(SignatureInvalid, match="agreed"):
            north.lock(self.KEY, weak, signed=self.MESSAGE)
        with pytest.raises(SignatureInvalid, match="agreed"):
            north.unlock(b"x" * LOCKED_BYTES, weak, signed=self.MESSAGE)

    @settings(max_examples=100, deadline=None)
    @given(payload=st.binary(max_size=300), where=st.integers(0, 10**6), byte=st.integers(0, 255))
    def test_what_is_encrypted_opens_with_its_key_and_unchanged_only(self, payload, where, byte):
        sealed, key = encrypted(payload)
        assert decrypted(sealed, key) == payload
        place = where % len(sealed)
        changed = bytes([*sealed[:place], byte, *sealed[place + 1 :]])
        for wrong, with_key in ((changed, key), (sealed, encrypted(payload)[1]), (sealed[:-1], key), (sealed, b"short")):
            if (wrong, with_key) != (sealed, key):
                with pytest.raises(SignatureInvalid):
                    decrypted(wrong, with_key)


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
_NORTH = SessionKeys(vouch, clock=_CLOCK)
_SIGNED = _NORTH.sign(b"payload", context=CONTEXT)
_SEALED = _NORTH.seal(b"payload", Vouchers(believe, clock=_CLOCK).signer_of(_SIGNED, limit=LIMIT), context=CONTEXT)


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
