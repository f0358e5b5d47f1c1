"""Headers: what is written is read, and nothing else is."""

from hashlib import sha256

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.aggregation.wire import MAGIC, PREFIX, TYPES, VERSION, Header, body_digest, join, split
from silo_app.errors import UpdateRefused

BODY = np.arange(10, dtype=np.uint8)
FIELDS = {
    "kind": "sum",
    "encryption": "bfv",
    "content": "update",
    "job": "job-1",
    "round_number": 3,
    "key": b"k" * 16,
    "layout": b"l" * 32,
    "size": 142,
    "bits": 16,
    "numbers": ("loss", "samples"),
    "masks": b"m" * 32,
    "basis": b"b" * 32,
    "participants": ("a", "b", "c"),
    "silos": ("a", "c"),
    "body": body_digest(BODY),
}
NAMES = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=8, unique=True).map(sorted)


def raw(fields, body=BODY, *, magic=MAGIC, version=VERSION, length=None):
    packed = fields if isinstance(fields, bytes) else msgpack.packb(fields)
    digest = sha256(packed).digest()
    return PREFIX.pack(magic, version, len(packed) if length is None else length, digest) + packed + body.tobytes()


@given(
    job=st.text(),
    number=st.integers(0, 2**40),
    names=NAMES,
    body=st.binary(max_size=100),
    kind=st.sampled_from(["update", "sum"]),
)
def test_a_message_is_read_as_it_was_written(job, number, names, body, kind):
    octets = np.frombuffer(body, dtype=np.uint8)
    own = {"kind": kind, "job": job, "round_number": number, "participants": tuple(names), "silos": tuple(names[:1])}
    header = Header(**{**FIELDS, **own, "body": body_digest(octets)})
    for message in (join(header, octets), join(header, octets).tobytes()):
        back, rest = split(message)
        assert back == header
        assert rest.tobytes() == body


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (raw(FIELDS, magic=b"SOLO"), "starts with b'SOLO'"),
        (raw(FIELDS, version=1), "version 1"),
        (raw(FIELDS, length=0), "header claims 0 bytes"),
        (raw(FIELDS, length=2**32 - 1), "header claims 4294967295 bytes"),
        (raw(FIELDS)[:-40] + raw(FIELDS)[-39:] + b"x", "header was damaged on its way"),
        (raw(b"\xc1\xc1"), "header of a round's message is damaged"),
        (raw(b"\x91" * 5000 + b"\x90"), "damaged"),
        (raw({**FIELDS, "extra": 1}), "damaged"),
        (raw({key: FIELDS[key] for key in list(TYPES)[1:]}), "damaged"),
        (raw({**FIELDS, "round_number": True}), "damaged"),
        (raw({**FIELDS, "job": b"job"}), "damaged"),
        (raw({**FIELDS, "round_number": -1}), "its round is -1"),
        (raw({**FIELDS, "size": 0}), "its content is 'update', its size 0"),
        (raw({**FIELDS, "content": "numbers"}), "its content is 'numbers', its size 142"),
        (raw({**FIELDS, "content": "opinion", "size": 0}), "its content is 'opinion'"),
        (raw({**FIELDS, "numbers": ["b", "a"]}), "numbers are not sorted"),
        (raw({**FIELDS, "numbers": ["n"] * 600}), "numbers are not names"),
        (raw({**FIELDS, "kind": "mean"}), "its kind is 'mean'"),
        (raw({**FIELDS, "encryption": "rot13"}), "its encryption 'rot13'"),
        (raw({**FIELDS, "silos": []}), "silos are not names"),
        (raw({**FIELDS, "silos": [1]}), "silos are not names"),
        (raw({**FIELDS, "silos": ["x" * 200]}), "silos are not names"),
        (raw({**FIELDS, "silos": ["c", "a"]}), "silos are not sorted"),
        (raw({**FIELDS, "participants": ["a", "a"]}), "participants are not sorted, or name one twice"),
        (raw({**FIELDS, "silos": ["a", "d"]}), "names silos beside the round"),
        (raw({**FIELDS, "body": bytes(32)}), "a, c: a round's message was refused: its body"),
    ],
)
def test_a_malformed_message_is_refused(message, problem):
    with pytest.raises(UpdateRefused) as caught:
        split(message)
    assert problem in str(caught.value)
