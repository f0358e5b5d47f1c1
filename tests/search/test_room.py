"""What is left out of a message: the largest parts, no more of them than must be."""

from hypothesis import given
from hypothesis import strategies as st

from silo_app.search.room import left_out


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(0, 200))
def test_the_largest_parts_are_left_out_and_no_more_than_must_be(sizes, room):
    out = left_out(sizes, room)
    kept = [size for place, size in enumerate(sizes) if place not in out]
    assert sum(kept) <= room
    for place in out:
        assert sizes[place] >= max(kept, default=0)
    assert not out or sum(kept) + min(sizes[place] for place in out) > room


def test_of_equal_parts_the_first_are_kept():
    assert left_out([5, 5, 5], 10) == {2}
