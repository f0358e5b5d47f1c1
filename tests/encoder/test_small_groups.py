from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.small_groups import is_small, one_group_each, tellable

views = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcde") | st.just(""), st.booleans()), max_size=150)


@settings(max_examples=300, deadline=None)
@given(views, st.integers(2, 6))
def test_nobody_can_be_counted_by_adding_and_subtracting_what_is_told(rows, least):
    """Patients may have views in several groups; whoever is told of the groups and of all adds and subtracts numbers."""
    patients = [f"p{patient}" for patient, _, _ in rows]
    here = one_group_each([group for _, group, _ in rows], patients, [f"{place:03d}" for place in range(len(rows))])

    def having(present, group=None):
        return {
            patient
            for patient, each, (_, _, has) in zip(patients, here, rows, strict=True)
            if has is present and group in {None, each}
        }

    groups = {name: (having(True, name), having(False, name)) for name in [*"abcde", ""]}
    may = [name for name in "abcde" if all(len(side) >= least for side in groups[name])]
    told = tellable(groups, may, least)
    assert told <= set(may)
    for present in (True, False):
        numbers = [len(having(present, name)) for name in told]
        left_over = len(having(present)) - sum(numbers)
        assert all(number >= least for number in numbers)
        assert not told or left_over == 0 or left_over >= least


def people(count, start):
    return set(range(start, start + count))


def test_groups_that_are_all_large_are_all_told():
    groups = {"F": (people(11, 0), people(20, 100)), "M": (people(12, 20), people(30, 200))}
    assert tellable(groups, "FM", 11) == {"F", "M"}


def test_a_small_group_takes_the_smallest_told_one_with_it():
    groups = {
        "F": (people(40, 0), people(40, 100)),
        "M": (people(15, 40), people(15, 200)),
        "O": (people(3, 80), people(2, 300)),
    }
    assert tellable(groups, "FM", 11) == {"F"}


def test_patients_of_no_group_count_as_left_over():
    groups = {"F": (people(40, 0), people(40, 100)), "M": (people(15, 40), people(15, 200))}
    assert tellable(groups | {"": (people(2, 90), set())}, "FM", 11) == {"F"}
    assert tellable(groups | {"": (people(11, 80), set())}, "FM", 11) == {"F", "M"}


def test_all_views_of_a_patient_are_in_the_group_of_the_first_name():
    assert one_group_each(["a", "b", "c", ""], ["p", "p", "q", "q"], ["2", "1", "4", "3"]) == ["b", "b", "", ""]


def test_nobody_is_not_few():
    assert [is_small(people(count, 0), 11) for count in (0, 1, 10, 11)] == [False, True, True, False]
