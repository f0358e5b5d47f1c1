"""Refusals that cost nothing: the first are recorded whole, and all are recorded."""

import datetime as dt

import pytest

from silo_app.search.refusals import COUNTED, FreeRefusals

NOW = 1_700_000_000.0


def refusal(asker="north", code="asker-not-allowed", **said):
    return "refusal", {"asker": asker, "code": code, **said}


def number(events):
    """Return how many refusals records stand for."""
    return sum(said["count"] if name == COUNTED else 1 for name, said in events)


def test_the_first_are_recorded_whole_and_the_others_counted():
    refusals = FreeRefusals(whole=2)
    events = [refusals.recorded(refusal(user=f"u{number}"), NOW + number) for number in range(5)]
    assert events == [[refusal(user="u0")], [refusal(user="u1")], [], [], []]
    assert refusals.due(NOW + 61) == []
    (told,) = refusals.due(NOW + 62)
    since = dt.datetime.fromtimestamp(NOW + 2, dt.UTC).isoformat(timespec="milliseconds")
    assert told == (COUNTED, {"asker": "north", "code": "asker-not-allowed", "count": 3, "since": since})
    assert refusals.due(NOW + 200) == refusals.rest() == []


def test_askers_and_codes_are_counted_for_themselves():
    refusals = FreeRefusals(whole=0)
    for event in (refusal(), refusal("west"), refusal(code="budget-spent"), refusal(), ("refusal", {"code": "stale"})):
        assert refusals.recorded(event, NOW) == []
    assert [(said["asker"], said["code"], said["count"]) for _, said in refusals.rest()] == [
        ("north", "asker-not-allowed", 2),
        ("west", "asker-not-allowed", 1),
        ("north", "budget-spent", 1),
        ("", "stale", 1),
    ]


@pytest.mark.parametrize("pause", [0.0, 0.01, 1, 30, 400, 4000])
def test_none_is_lost_and_records_are_few(pause):
    refusals, events, asked = FreeRefusals(), [], 5000
    for place in range(asked):
        now = NOW + place * pause
        events += refusals.due(now)
        events += refusals.recorded(refusal(), now)
    hours = 1 + asked * pause / 3600
    assert len(events) <= min(asked, 72 * hours)
    assert number(events + refusals.rest()) == asked


def test_the_next_hour_begins_with_whole_ones_and_what_was_not_counted_is_forgotten():
    refusals = FreeRefusals(whole=1)
    refusals.recorded(refusal(), NOW)
    refusals.recorded(refusal(), NOW + 1)
    told = refusals.recorded(refusal(), NOW + 3601)
    assert [name for name, _ in told] == [COUNTED, "refusal"]
    assert refusals.due(NOW + 8000) == []
    assert not refusals._tallies


def test_a_clock_that_is_set_back_loses_nothing():
    refusals = FreeRefusals(whole=0)
    refusals.recorded(refusal(), NOW)
    assert number(refusals.due(NOW - 500)) == 1


def test_what_was_not_written_is_counted_again():
    refusals = FreeRefusals(whole=1)
    events = [event for _ in range(4) for event in refusals.recorded(refusal(), NOW)]
    lost = refusals.rest()
    assert number(events + lost) == 4
    refusals.recorded(refusal(), NOW + 5)
    refusals.unrecorded(lost, NOW + 6)
    (told,) = refusals.due(NOW + 60)
    assert told[1]["count"] == 4
