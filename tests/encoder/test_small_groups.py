from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.small_groups import tellable

side = st.sets(st.integers(0, 40), max_size=14)
groups = st.dictionaries(st.sampled_from("abcde"), st.tuples(side, side), max_size=5)


@settings(max_examples=200, deadline=None)
@given(groups, st.tuples(side, side), st.integers(2, 6))
def test_neither_a_told_group_nor_what_is_left_over_is_of_few(groups, untold, least):
    told = tellable(groups, untold, least)
    assert all(len(side) >= least for name in told for side in groups[name])
    for place in (0, 1):
        hidden = set(untold[place]).union(*(sides[place] for name, sides in groups.items() if name not in told))
        assert not told or not hidden or len(hidden) >= least


def people(count, start):
    return set(range(start, start + count))


def test_groups_that_are_all_large_are_all_told():
    groups = {"F": (people(11, 0), people(20, 100)), "M": (people(12, 20), people(30, 200))}
    assert tellable(groups, (set(), set()), 11) == {"F", "M"}


def test_a_small_group_takes_the_smallest_told_one_with_it():
    groups = {
        "F": (people(40, 0), people(40, 100)),
        "M": (people(15, 40), people(15, 200)),
        "O": (people(3, 80), people(2, 300)),
    }
    assert tellable(groups, (set(), set()), 11) == {"F"}


def test_patients_of_no_group_count_as_left_over():
    groups = {"F": (people(40, 0), people(40, 100)), "M": (people(15, 40), people(15, 200))}
    assert tellable(groups, (people(2, 90), set()), 11) == {"F"}
    assert tellable(groups, (people(11, 80), set()), 11) == {"F", "M"}
