"""Parcels: what went in comes out, whatever bytes come."""

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from silo_app.errors import MessageInvalid
from silo_app.search.parcels import Content, Parcel, alone, is_parcel, pack, unpack, unpacked_alone

NUMBERS = st.integers(0, 2**53)


@given(st.dictionaries(NUMBERS, st.tuples(st.binary(max_size=50), st.integers(0, 60_000)), max_size=20))
def test_what_was_packed_is_unpacked(contents):
    parcel = Parcel(tuple(Content(number, body, budget) for number, (body, budget) in contents.items()))
    frame = pack(parcel)
    assert is_parcel(frame)
    assert unpack(frame) == parcel


START = pack(Parcel())[:-1]
"""What every parcel begins with."""


@given(st.binary(max_size=200), st.integers(0, 200))
def test_other_bytes_are_refused(noise, cut):
    whole = pack(Parcel((Content(1, b"abc", 5),)))
    for frame in (noise, whole[: min(cut, len(whole) - 1)], whole + b"x"):
        with pytest.raises(MessageInvalid):
            unpack(frame)


@given(st.binary(max_size=200))
@example(b"\x80")
@example(b"\xa0")
@example(b"\x90")
@example(b"\xdc\x00\x00")
def test_what_begins_as_a_parcel_is_refused_or_is_one(noise):
    try:
        parcel = unpack(START + noise)
    except MessageInvalid:
        return
    assert msgpack.unpackb(noise) == [[one.number, one.budget_ms, one.body] for one in parcel.contents]


UNSOUND = {
    "a number twice": Parcel((Content(1, b""), Content(1, b""))),
    "a negative number": Parcel((Content(-1, b""),)),
    "a budget of an hour": Parcel((Content(1, b"", 3_600_000),)),
    "text for bytes": Parcel((Content(1, "text"),)),
    "too many": Parcel(tuple(Content(number, b"") for number in range(257))),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_an_unsound_parcel_is_refused(kind):
    with pytest.raises(MessageInvalid, match="other types or values"):
        unpack(pack(UNSOUND[kind]))


def test_a_message_alone_takes_its_time_along_and_its_reply_is_what_comes_back():
    (content,) = unpack(alone(b"question", 300)).contents
    assert (content.body, content.budget_ms) == (b"question", 300)
    assert unpacked_alone(pack(Parcel((Content(content.number, b"answer"),)))) == b"answer"


@pytest.mark.parametrize("reply", [b"", b"noise", pack(Parcel()), pack(Parcel((Content(0, b"a"), Content(1, b"b"))))])
def test_what_is_no_reply_to_one_message_stays_as_it_is(reply):
    assert unpacked_alone(reply) == reply
