"""Fresh requests pass once."""

import pytest

from silo_app.policy.refusal import RefusalCode
from silo_app.search.replays import FRESH_S, SeenQueries

NOW = 1_700_000_000.0


def at(request_of, seconds):
    return request_of(issued_at_ms=int((NOW + seconds) * 1000))


@pytest.mark.parametrize("seconds", [0, -FRESH_S + 1, FRESH_S - 1])
def test_a_fresh_request_passes_once(request_of, seconds):
    seen, request = SeenQueries(), at(request_of, seconds)
    assert seen.refusal(request, NOW) is None
    assert seen.refusal(request, NOW + 1) is RefusalCode.REPLAYED


@pytest.mark.parametrize("seconds", [-FRESH_S - 1, FRESH_S + 1, -1e9])
def test_an_old_request_or_one_from_the_future_does_not(request_of, seconds):
    assert SeenQueries().refusal(at(request_of, seconds), NOW) is RefusalCode.STALE


def test_a_replay_is_refused_for_as_long_as_the_request_is_fresh(request_of):
    seen, request = SeenQueries(), at(request_of, FRESH_S - 1)
    assert seen.refusal(request, NOW) is None
    for later in range(0, int(2 * FRESH_S) + 10, 7):
        assert seen.refusal(request, NOW + later) in {RefusalCode.REPLAYED, RefusalCode.STALE}


def test_what_is_no_longer_fresh_is_forgotten(request_of):
    seen = SeenQueries(limit=1)
    assert seen.refusal(at(request_of, 0), NOW) is None
    assert seen.refusal(at(request_of, 0), NOW) is RefusalCode.BUSY
    later = NOW + 3 * FRESH_S
    assert seen.refusal(request_of(issued_at_ms=int(later * 1000)), later) is None


def test_who_asks_too_much_keeps_nobody_else_out(request_of):
    seen = SeenQueries(limit=3)
    codes = [seen.refusal(at(request_of, 0), NOW) for _ in range(5)]
    assert codes == [None] * 3 + [RefusalCode.BUSY] * 2
    assert seen.refusal(request_of(asker="west", issued_at_ms=int(NOW * 1000)), NOW) is None


def test_two_silos_may_choose_the_same_query_id(request_of):
    seen, request = SeenQueries(), at(request_of, 0)
    assert seen.refusal(request, NOW) is None
    assert seen.refusal(request.model_copy(update={"asker": "west"}), NOW) is None
    assert seen.refusal(request.model_copy(update={"asker": "west"}), NOW) is RefusalCode.REPLAYED


def test_what_an_earlier_process_answered_is_remembered(request_of):
    seen, request = SeenQueries(), at(request_of, 0)
    seen.remember([(request.asker, request.query_id)], NOW)
    assert seen.refusal(request, NOW) is RefusalCode.REPLAYED


def test_it_is_remembered_whenever_it_was_asked(request_of):
    """For as long as a copy could be fresh."""
    for asked in range(0, int(2 * FRESH_S) + 20, 13):
        seen = SeenQueries()
        seen.refusal(at(request_of, 0), NOW)  # the first part begins
        request = at(request_of, asked)
        assert seen.refusal(request, NOW + asked) is None
        for later in range(1, int(FRESH_S), 11):
            assert seen.refusal(request, NOW + asked + later) is RefusalCode.REPLAYED
        assert seen.refusal(request, NOW + asked + FRESH_S + 1) is RefusalCode.STALE


def test_what_an_audit_log_holds_that_is_no_query_id_is_passed_over(request_of):
    seen = SeenQueries()
    seen.remember([("north", "noise"), ("north", "")], NOW)
    assert seen.refusal(at(request_of, 0), NOW) is None
