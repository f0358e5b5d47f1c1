import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.encoder.sampling import Weighable, batches, positive_weights, shares


def labels(*columns):
    targets = np.array(columns, np.float32).T
    return targets, np.ones(targets.shape, np.bool_)


def test_present_and_absent_are_drawn_equally_often_however_rare_one_is():
    targets, known = labels([1] + [0] * 99)
    share = shares(targets, known)
    assert share[0] == pytest.approx(0.5)
    assert np.ptp(share[1:]) == 0


def test_of_many_kinds_a_rare_one_is_drawn_more_often_than_it_occurs_but_not_as_often_as_a_common_one():
    targets, known = labels([1] * 4 + [0] * 96, [0] * 4 + [1] * 36 + [0] * 60)
    share = shares(targets, known)
    assert 0.04 < share[:4].sum() < share[4:40].sum() < share[40:].sum() < 0.6


def test_one_kind_or_nothing_known_is_drawn_evenly():
    targets, known = labels([1, 1, 1, 1])
    assert np.allclose(shares(targets, known), 0.25)
    assert np.allclose(shares(targets, ~known), 0.25)


def test_unknown_is_a_kind_of_its_own_and_not_absent():
    targets, known = labels([0, 0, 0, 1])
    known[0] = False
    assert shares(targets, known)[0] > shares(targets, known)[1]


def test_batches_have_the_size_and_number_asked_for_and_follow_the_seed():
    targets, known = labels([0, 1, 0])
    drawn = [list(batches(shares(targets, known), 8, 3, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert [len(batch) for batch in drawn[0]] == [8, 8, 8]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_present_finding_weighs_as_much_as_sampling_left_it_short_of():
    targets, known = labels([1] * 10 + [0] * 90)
    even = np.full(100, 0.01)
    assert positive_weights(targets, known, even) == pytest.approx([9])
    assert positive_weights(targets, known, shares(targets, known)) == pytest.approx([1])


def test_weights_are_bounded_and_one_where_a_class_is_missing():
    targets, known = labels([1] + [0] * 999, [0] * 1000, [1] * 1000)
    assert positive_weights(targets, known, np.full(1000, 0.001)).tolist() == [20, 1, 1]


def test_unknown_views_weigh_nothing():
    targets, known = labels([1, 0, 0, 0])
    known[2:] = False
    assert positive_weights(targets, known, np.full(4, 0.25)).tolist() == [1]


@pytest.mark.parametrize(
    ("present", "absent", "telling"),
    [(50, 50, 100), (1, 499, 4 * 499 / 500), (499, 1, 4 * 499 / 500), (73, 27, 4 * 73 * 27 / 100)],
)
def test_a_silo_weighs_what_tells_a_finding_apart(present, absent, telling):
    found = Weighable.of(*labels([1] * present + [0] * absent))
    assert found.telling == pytest.approx(telling)
    assert found.silent == 0
    assert found.weight(0.1) == round(telling)


def test_views_of_which_one_side_is_known_or_none_are_silent():
    targets, known = labels([1] * 8 + [0] * 2, [1] * 10)
    known[8:, 0] = False
    assert Weighable.of(targets, known) == Weighable(0.0, 10)
    assert Weighable.of(targets, known).weight(0.5) == 5
    assert Weighable.of(targets, known).weight(0.0) == 1


@given(st.lists(st.tuples(*[st.sampled_from([None, 0, 1])] * 3), min_size=1, max_size=40))
def test_a_silo_weighs_no_more_than_its_views_and_the_same_in_any_order(rows):
    known = np.array([[one is not None for one in row] for row in rows], np.bool_)
    targets = np.array([[one or 0 for one in row] for row in rows], np.float32)
    found = Weighable.of(targets, known)
    assert 0 <= found.telling <= len(rows) - found.silent
    assert 1 <= found.weight(1.0) <= len(rows)
    assert Weighable.of(targets[::-1], known[::-1]) == found
    assert Weighable.of(known * (1 - targets), known) == found
