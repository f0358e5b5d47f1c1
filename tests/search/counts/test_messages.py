"""Counts travel whole or not at all: nothing finer than silos compare, and no number that a silo says it does not tell."""

import msgpack
import numpy as np
import pytest

from silo_app.errors import MessageInvalid
from silo_app.search.counts.messages import CountAnswer, CountRequest, told_words
from silo_app.search.messages import unit_embedding
from silo_app.search.wire import decode, encode

REQUEST = {
    "issued_at_ms": 1,
    "budget_ms": 1000,
    "encoder_version": "ab" * 16,
    "vector": unit_embedding(np.arange(1, 9, dtype=np.float32)),
    "alike": 95.0,
    "purpose": "care",
    "asker": "north",
}
ANSWER = {
    "query_id": "a" * 32,
    "silo": "south",
    "encoder_version": "ab" * 16,
    "generation": "000001",
    "indexed": 400,
    "min_count": 11,
    "epsilon": 1.0,
    "patients": 57,
    "findings": {"Mass": 12, "Edema": None},
}


@pytest.mark.parametrize("message", [CountRequest(**REQUEST), CountAnswer(**ANSWER)], ids=["request", "answer"])
def test_a_message_comes_back_as_it_was(message):
    assert decode(encode(message), type(message)) == message


WRONG = {
    "a level between tenths": (CountRequest, "alike", 95.01),
    "a level that is none": (CountRequest, "alike", 101.0),
    "a similarity between hundredths": (CountRequest, "similarity", 0.123),
    "a vector of another length": (CountRequest, "vector", np.ones(8, "<f4").tobytes()),
    "a number that it does not tell": (CountAnswer, "patients", 10),
    "a number that is negative": (CountAnswer, "patients", -1),
    "more patients than cases": (CountAnswer, "patients", 401),
    "a finding that is few": (CountAnswer, "findings", {"Mass": 3}),
    "a finding that is more than all": (CountAnswer, "findings", {"Mass": 500}),
    "a finding that is none": (CountAnswer, "findings", {"Secret": 12}),
    "no minimum": (CountAnswer, "min_count", 0),
    "no noise": (CountAnswer, "epsilon", 0.0),
    "noise that takes a year to add up": (CountAnswer, "epsilon", 1e-9),
    "a word": (CountAnswer, "patients", "57"),
    "half a patient": (CountAnswer, "patients", 57.5),
}


@pytest.mark.parametrize("kind", WRONG)
def test_nonsense_is_refused(kind):
    message, field, value = WRONG[kind]
    known = {CountRequest: REQUEST, CountAnswer: ANSWER}[message]
    fields = {"version": 1, "kind": message.model_fields["kind"].default} | known | {field: value}
    with pytest.raises(MessageInvalid, match=r"wrong fields"):
        decode(msgpack.packb(fields), message)


def test_what_was_told_in_words_for_the_audit_logs():
    assert told_words(CountAnswer(**ANSWER)) == ["patients: 57", "Mass: 12", "Edema: under 11"]
