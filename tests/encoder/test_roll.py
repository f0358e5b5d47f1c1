"""Who can take part in a round: who has opened all but the last sum before it, and has sent its masks for it."""

from silo_app.encoder.roll import Roll


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
    assert silos.bundles(0) == {"a": b"masks of a"}


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
    assert silos.bundles(1) == {}


def test_a_stranger_is_not_heard():
    silos = roll()
    silos.heard("mallory", 0, (0, b"masks"))
    assert silos.participants(0) == ()
