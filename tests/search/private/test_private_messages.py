"""The messages of a private search fit what they carry at the largest dimension, and nothing larger."""

import numpy as np
import pytest
from pydantic import ValidationError

from silo_app.errors import MessageInvalid
from silo_app.flare.cells import MAX_REQUEST_BYTES
from silo_app.policy.release import Card
from silo_app.search.messages import Relay, SiloReport, SiloState
from silo_app.search.private.ask import _asked_for, _hits, _Part, _require_chosen
from silo_app.search.private.asker import Asking
from silo_app.search.private.messages import CardsAnswer, CardsRequest, PrivateAnswer, PrivateRequest, SlotHit
from silo_app.search.private.scheme import MAX_DIMENSION
from silo_app.search.wire import decode, encode


def request(**fields):
    known = {
        "issued_at_ms": 1,
        "budget_ms": 1000,
        "purpose": "care",
        "asker": "north",
        "encoder_version": "ab" * 32,
        "dimension": MAX_DIMENSION,
        "ciphertext": b"x",
        "session": "0" * 32,
    }
    return PrivateRequest(**(known | fields))


def test_a_first_query_of_the_largest_dimension_fits_into_one_message():
    asking = Asking.begin(MAX_DIMENSION)
    vector = np.full(MAX_DIMENSION, MAX_DIMENSION**-0.5, np.float32)
    made = request(ciphertext=asking.ask(vector).ciphertext, keys=asking.keys)
    frame = encode(made)
    assert decode(frame, PrivateRequest) == made
    assert len(encode(Relay(silo="south", budget_ms=1000, frame=frame))) < MAX_REQUEST_BYTES / 2


@pytest.mark.parametrize("fields", [{"keys": b"x" * 2_000_000}, {"ciphertext": b"x" * 300_000}, {"session": "x"}])
def test_what_no_asker_sends_is_refused(fields):
    with pytest.raises(ValidationError):
        request(**fields)


def cards_request(**fields):
    known = {"issued_at_ms": 1, "budget_ms": 1000, "purpose": "care", "asker": "north", "scored": "0" * 32, "silo": "south"}
    return CardsRequest(**(known | {"slots": (2, 5, 9), "alike": (False, True, False)} | fields))


@pytest.mark.parametrize(
    "fields",
    [{"slots": (5, 2, 9)}, {"slots": (2, 2, 9)}, {"alike": (False, True)}, {"alike": (0.1, 0.2, 0.3)}, {"scores": (1.0,)}],
    ids=["in another order", "twice", "a bit too few", "numbers for bits", "scores"],
)
def test_a_cards_request_has_ascending_slots_and_a_bit_of_each(fields):
    cards_request()
    with pytest.raises(ValidationError):
        cards_request(**fields)


@pytest.mark.parametrize("fields", [{"views": 6}, {"indexed": 6}])
def test_no_silo_scores_more_than_its_index_has(fields):
    known = {
        "query_id": "0" * 32,
        "silo": "south",
        "encoder_version": "ab" * 32,
        "generation": "1",
        "blocks": (),
        "most": 20,
    }
    PrivateAnswer(**known, indexed=5, indexed_views=5, views=5)
    with pytest.raises(ValidationError, match="than the index has"):
        PrivateAnswer(**(known | {"indexed": 5, "indexed_views": 5, "views": 5} | fields))


def part(scores, **fields):
    """What a silo gave: slots counted down, with their similarities, best first."""
    report = SiloReport(silo="south", state=SiloState.ANSWERED, took_ms=1.0)
    return _Part(report, "0" * 32, tuple(range(len(scores) - 1, -1, -1)), scores, **fields)


def test_slots_behind_those_kept_back_are_no_more_than_the_silo_shows():
    """Told of more it would have to leave some out, and does not know which are the nearest."""
    scores = tuple(np.linspace(0.9, 0.1, 60))
    asked = _asked_for(part(scores, kept_back=4, most=20), 40)
    assert asked == dict(sorted((dict.fromkeys(range(56, 60), True) | dict.fromkeys(range(36, 56), False)).items()))
    assert list(asked) == sorted(asked)
    assert list(_asked_for(part(scores, most=3), 1)) == list(range(44, 60))  # in company


def test_of_very_many_that_are_kept_back_the_nearest_are_named_and_the_others_not_asked_for():
    """What is asked for tells a silo that cheats where the query lies."""
    asked = _asked_for(part(tuple(np.linspace(0.9, 0.1, 200)), kept_back=128, most=20), 18)
    assert [slot for slot, is_alike in asked.items() if is_alike] == list(range(200 - 16, 200))
    assert [slot for slot, is_alike in asked.items() if not is_alike] == list(range(72 - 18, 72))


def test_a_case_of_several_views_has_the_score_of_the_nearest():
    hit = SlotHit(slots=(0, 2), case="0" * 32, card=Card())
    answer = CardsAnswer(query_id="0" * 32, silo="south", hits=(hit,))
    scores = {0: 0.25, 1: 0.5, 2: 0.75}
    assert [found.score for found in _hits(part((0.75, 0.5, 0.25)), answer, scores)] == [0.75]


@pytest.mark.parametrize("slots", [[(2, 3)], [(2, 2)], [(2, 5), (5,)]], ids=["not asked for", "twice", "of two cases"])
def test_cards_of_other_slots_are_refused(slots):
    request = cards_request()
    hits = tuple(SlotHit(slots=one, case=f"{number:032x}", card=Card()) for number, one in enumerate(slots))
    answer = CardsAnswer(query_id=request.query_id, silo="south", hits=hits)
    with pytest.raises(MessageInvalid, match="other cases"):
        _require_chosen("south", request, answer)
