"""Messages: what is well formed comes back as it was, anything else is refused and nothing else happens."""

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from silo_app.errors import MessageInvalid, ProtocolError, SignatureInvalid
from silo_app.identity import Identity
from silo_app.policy.refusal import RefusalCode
from silo_app.policy.release import Card
from silo_app.search.envelope import CONTEXT, open_request, peek_request, seal
from silo_app.search.messages import (
    ErrorMessage,
    Refusal,
    ReleasedHit,
    ResultHit,
    SearchRequest,
    SearchResult,
    SiloAnswer,
    SiloReport,
    SiloState,
    unit_embedding,
)
from silo_app.search.wire import decode, encode

KINDS = (SearchRequest, SiloAnswer, Refusal, SearchResult, ErrorMessage)
CARD = Card(position="PA", sex="F", age_band="40-49", study_year=2019, findings={"Pneumonia": True, "Mass": False})
HIT = {"case": "c" * 32, "score": 0.5, "card": CARD}


def messages(request_of):
    return {
        SearchRequest: request_of(),
        SiloAnswer: SiloAnswer(
            query_id="a" * 32,
            silo="north",
            encoder_version="ab" * 16,
            generation="000001",
            indexed=5,
            hits=(ReleasedHit(**HIT),),
        ),
        Refusal: Refusal.of("north", RefusalCode.PURPOSE, query_id="a" * 32),
        SearchResult: SearchResult(
            query_id="a" * 32,
            encoder_version="ab" * 16,
            k=3,
            hits=(ResultHit(silo="north", **HIT),),
            silos=(SiloReport(silo="north", state=SiloState.ANSWERED, took_ms=1.5),),
        ),
        ErrorMessage: ErrorMessage(code="broker-unreachable", public="No search broker answers."),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_comes_back_as_it_was(kind, request_of):
    message = messages(request_of)[kind]
    assert decode(encode(message), kind) == message


def test_the_embedding_comes_back_to_the_last_bit(request_of):
    vector = np.linspace(-1, 2, 256, dtype=np.float32)
    request = decode(encode(request_of(vector)), SearchRequest)
    assert request.embedding.dtype == np.float32
    assert request.embedding.tobytes() == unit_embedding(vector)


def test_a_message_of_another_kind_is_refused(request_of):
    frame = encode(messages(request_of)[Refusal])
    with pytest.raises(MessageInvalid, match="not a message of kind answer or result"):
        decode(frame, SiloAnswer, SearchResult)


vector8 = np.eye(8, dtype="<f4")[0]
WRONG = {
    "version": 2,
    "query_id": "A" * 32,
    "issued_at_ms": -1,
    "budget_ms": 10**9,
    "encoder_version": "../../etc",
    "vector": b"abc",
    "k": 0,
    "purpose": "care\n",
    "asker": "North; drop",
    "user": "u" * 129,
    "unknown": 1,
}
WRONG_VECTORS = {
    "nothing": b"",
    "not whole": vector8.tobytes()[:-1],
    "not unit": (2 * vector8).tobytes(),
    "zero": bytes(32),
    "not a number": np.full(8, np.nan, "<f4").tobytes(),
    "infinite": np.full(8, np.inf, "<f4").tobytes(),
    "too long": bytes(4 * 5000),
}
CASES = [*WRONG.items(), *((f"vector:{name}", value) for name, value in WRONG_VECTORS.items())]


@pytest.mark.parametrize(("field", "value"), CASES, ids=[name for name, _ in CASES])
def test_a_wrong_field_is_named_without_its_value(field, value, request_of):
    field = field.partition(":")[0]
    content = request_of().model_dump() | {field: value}
    with pytest.raises(MessageInvalid, match=rf"wrong fields: {field}") as raised:
        decode(msgpack.packb(content), SearchRequest)
    if isinstance(value, str):
        assert value not in str(raised.value)


@pytest.mark.parametrize("field", ["query_id", "vector", "k", "asker", "purpose", "budget_ms", "issued_at_ms"])
def test_a_missing_field_is_refused(field, request_of):
    content = request_of().model_dump()
    if field == "query_id":
        content[field] = None
    else:
        del content[field]
    with pytest.raises(MessageInvalid, match=field):
        decode(msgpack.packb(content), SearchRequest)


WRONG_SCORES = [1.5, -1.5, float("nan"), float("inf"), "0.5", None, True]


@pytest.mark.parametrize("score", WRONG_SCORES)
def test_a_nonsense_score_is_refused(score, request_of):
    content = messages(request_of)[SiloAnswer].model_dump()
    content["hits"] = [{**HIT, "card": {}, "score": score}]
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb(content), SiloAnswer)


@pytest.mark.parametrize("extra", ["patient", "device", "digest", "thumbnail"])
def test_a_card_with_a_field_that_no_policy_knows_is_refused(extra, request_of):
    content = messages(request_of)[SiloAnswer].model_dump()
    content["hits"] = [{**HIT, "card": {extra: "x"}}]
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb(content), SiloAnswer)


def test_size_is_checked_before_anything_is_read():
    with pytest.raises(MessageInvalid, match="65537 bytes; the largest allowed is 65536"):
        decode(bytes(64 * 1024 + 1), SearchRequest)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
@example(b"\xc1")
@example(b"\x81\xc0\xc0")
@example(b"\x91" * 5000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc7\xff\x00")
def test_arbitrary_bytes_are_only_ever_invalid(frame):
    for kind in KINDS:
        with pytest.raises(MessageInvalid):
            decode(frame, kind)


fields = st.sampled_from(sorted({name for kind in KINDS for name in kind.model_fields}))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=9), st.binary(max_size=9)
)
values = st.recursive(scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(fields, inner)))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["request", "answer", "refusal", "result", "error"]), st.dictionaries(fields, values))
def test_arbitrary_fields_raise_nothing_but_invalid(kind, content):
    frame = msgpack.packb({**content, "kind": kind})
    for expected in KINDS:
        try:
            decode(frame, expected)
        except MessageInvalid:
            continue


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 2**20), flip=st.integers(1, 255))
def test_a_signed_request_with_any_byte_changed_is_refused(place, flip, authority):
    request = SearchRequest(
        issued_at_ms=1, budget_ms=1, encoder_version="ab" * 16, vector=vector8.tobytes(), k=1, purpose="care", asker="north"
    )
    frame = bytearray(seal(authority.identity("north"), request))
    frame[place % len(frame)] ^= flip
    with pytest.raises(ProtocolError):
        open_request(authority.identity("south").trust, bytes(frame))


@settings(max_examples=100, deadline=None)
@given(frame=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_signed_request(frame, authority):
    for read in (peek_request, lambda f: open_request(authority.identity("south").trust, f)):
        with pytest.raises(ProtocolError):
            read(frame)


def test_a_signed_request_is_opened_and_may_be_peeked_at(authority, request_of):
    request = request_of()
    frame = seal(authority.identity("north"), request)
    assert open_request(authority.identity("south").trust, frame) == request
    assert peek_request(frame) == request


def test_a_request_in_another_silos_name_is_refused(authority, request_of):
    frame = seal(authority.identity("west"), request_of(asker="north"))
    with pytest.raises(SignatureInvalid, match="north asks, but 'west' signed it"):
        open_request(authority.identity("south").trust, frame)


def test_a_request_signed_by_an_administrator_is_refused(authority, request_of):
    frame = seal(authority.identity("lead", role="lead"), request_of(asker="lead"))
    with pytest.raises(SignatureInvalid, match="which is no silo"):
        open_request(authority.identity("south").trust, frame)


def test_a_request_of_another_federation_is_refused(authority, request_of, tmp_path):
    stranger: Identity = type(authority)(tmp_path).identity("north")
    with pytest.raises(SignatureInvalid):
        open_request(authority.identity("south").trust, seal(stranger, request_of()))


def test_a_signature_made_for_another_purpose_is_refused(authority, request_of):
    frame = authority.identity("north").session.sign(encode(request_of()), context=b"another purpose")
    with pytest.raises(SignatureInvalid):
        open_request(authority.identity("south").trust, frame)
    kept = authority.identity("north").sign(encode(request_of()), context=CONTEXT)
    with pytest.raises(MessageInvalid):
        open_request(authority.identity("south").trust, kept)
    assert CONTEXT != b"another purpose"


@pytest.mark.parametrize("text", ["x\x1b[2K\r", "\u202edr.x", "dr.x\n", "\x9b2J", "x" * 201])
def test_what_would_act_on_a_terminal_is_no_user_and_no_sentence(text, request_of):
    wrong = {SearchRequest: {"user": text}, Refusal: {"public": text}, ErrorMessage: {"public": text}}
    for kind, change in wrong.items():
        with pytest.raises(MessageInvalid):
            decode(encode(messages(request_of)[kind].model_copy(update=change)), kind)


@pytest.mark.parametrize(
    "user", ["dr.x@north", "Zoë Müller", "山田　太郎", "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", ""]
)
def test_a_user_has_a_name_of_any_script(user, request_of):
    request = request_of(user=user)
    assert decode(encode(request), SearchRequest).user == user
