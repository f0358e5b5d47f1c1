"""What a question is put into, and what can be read of it from outside."""

import pytest

from silo_app.search.counts.messages import CountRequest
from silo_app.search.envelope import budget_of, conceal, keyed, keys_for, seal
from silo_app.search.messages import Bundle, Relay, Who
from silo_app.search.parcels import Content, Parcel, pack
from silo_app.search.private.messages import CardsRequest, PrivateRequest
from silo_app.search.sealed import Broadcast
from silo_app.search.wire import encode

BUDGET_MS = 31_234
USUAL_MS = 5000


def _bundle(one):
    return Bundle(budget_ms=one.budget_ms, asker="north", encoder_version=one.encoder_version, k=10, requests=(encode(one),))


def _shared(one):
    return one.model_dump(include={"issued_at_ms", "budget_ms", "purpose", "asker"})


QUESTIONS = {
    "search": lambda one: one,
    "bundle": _bundle,
    "count": lambda one: CountRequest(**_shared(one), encoder_version=one.encoder_version, vector=one.vector, alike=95.0),
    "private": lambda one: PrivateRequest(
        **_shared(one),
        encoder_version=one.encoder_version,
        dimension=16,
        ciphertext=b"c",
        session="0" * 32,
        keys=b"k" * 10**6,
    ),
    "cards": lambda one: CardsRequest(**_shared(one), scored="0" * 32, silo="south", slots=(0,), alike=(False,)),
}


def _keyed(identity, request):
    identity.peers["south"] = identity.trust.vouched(identity.session.voucher)  # anybody's do
    signed, key = conceal(identity, request)
    frame = keyed(signed, keys_for(identity, signed, key, ["south"])["south"])
    assert frame != signed
    return frame


WAYS = {
    "for everybody": seal,
    "concealed, without a key": lambda identity, request: conceal(identity, request)[0],
    "concealed, with a key": _keyed,
    "to all": lambda identity, request: encode(Broadcast(budget_ms=request.budget_ms, frame=conceal(identity, request)[0])),
    "to one": lambda identity, request: encode(
        Relay(silo="south", budget_ms=request.budget_ms, frame=_keyed(identity, request))
    ),
    "in a parcel": lambda identity, request: pack(Parcel((Content(0, _keyed(identity, request), request.budget_ms),))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", QUESTIONS)
def test_how_long_a_question_may_take_is_seen_in_whatever_it_comes(kind, way, authority, request_of):
    request = QUESTIONS[kind](request_of(budget_ms=BUDGET_MS))
    assert budget_of(WAYS[way](authority.identity("north"), request)) == BUDGET_MS


def test_what_is_left_of_a_budget_counts_and_the_longest_of_a_parcel(sealed):
    frame = sealed(budget_ms=BUDGET_MS)
    assert budget_of(encode(Broadcast(budget_ms=300, frame=frame))) == 300
    assert budget_of(pack(Parcel((Content(0, frame, 200), Content(1, frame, 700))))) == 700


@pytest.mark.parametrize(
    "frame", [b"", b"noise", b"\xc1" * 100, b"siloscope keyed request 1\0", encode(Who()), pack(Parcel())]
)
def test_what_says_no_budget_has_the_usual_one(frame):
    assert budget_of(frame) == USUAL_MS
