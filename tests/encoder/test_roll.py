"""Who can take part in a round: who has opened all but the last sum before it, and has sent its masks for it."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from silo_app.encoder.roll import Roll, drawn


def roll(masked=True):
    made = Roll(masked=masked)
    made.enrol(["b", "a", "c"], 0)
    return made


def test_nobody_takes_part_before_its_masks_are_there():
    silos = roll()
    assert silos.participants(0) == ()
    silos.heard("a", 0, (0, b"masks of a"))
    silos.heard("b", 0, (1, b"for later"))
    assert silos.participants(0) == ("a",)
    assert silos.bundles(0, ["a"]) == {"a": b"masks of a"}


def test_who_misses_more_than_the_last_sum_has_to_catch_up_first():
    silos = roll()
    for silo, position in (("a", 3), ("b", 2), ("c", 1)):
        silos.heard(silo, position, (3, b"masks"))
    assert silos.participants(3) == ("a", "b")
    silos.heard("c", 2)
    assert silos.participants(3) == ("a", "b", "c")


def test_without_masks_only_the_position_counts():
    silos = roll(masked=False)
    assert silos.participants(1) == ("a", "b", "c")
    assert silos.participants(2) == ()
    assert silos.bundles(1, ["a"]) == {}


@given(
    silos=st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=2, max_size=12),
    sample=st.floats(0.01, 1),
    least=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_a_draw_takes_the_share_or_what_is_needed_and_is_the_same_again(silos, sample, least, seed):
    def draw(of_silos, training_round=0):
        return drawn(of_silos, of=len(silos), sample=sample, least=least, seed=seed, training_round=training_round)

    taken = draw(sorted(silos))
    assert len(taken) == min(len(silos), max(least, math.ceil(sample * len(silos))))
    assert taken == draw(sorted(silos, reverse=True))
    assert set(taken) <= silos
    if len(taken) < len(silos):  # one that is not drawn changes nothing by being away
        assert draw(sorted(silos - {min(silos - set(taken))})) == taken


def test_every_silo_is_drawn_as_often():
    silos = [f"silo-{n}" for n in range(8)]
    counts = Counter(
        silo for number in range(400) for silo in drawn(silos, of=8, sample=0.5, least=2, seed=1, training_round=number)
    )
    assert set(counts) == set(silos)
    assert max(counts.values()) - min(counts.values()) < 60  # of 200 each; the draw is of no randomness but its names


def test_a_stranger_is_not_heard():
    silos = roll()
    silos.heard("mallory", 0, (0, b"masks"))
    assert silos.participants(0) == ()
