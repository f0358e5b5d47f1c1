"""Distances between silos: zero for equals, one for strangers, and chance told from difference."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.privacy.survey import _cells
from silo_app.privacy.unlike import _filled, compare, distance

COUNTS = st.lists(st.integers(0, 500), min_size=3, max_size=8)


def test_ends_of_the_scale():
    assert distance([5, 5], [50, 50]) == pytest.approx(0, abs=1e-8)
    assert distance([9, 0], [0, 4]) == pytest.approx(1)
    assert distance([0, 0], [1, 1]) is None


def test_a_value_by_hand():
    """Of shares (1, 0) and (1/2, 1/2): the middle is (3/4, 1/4)."""
    divergence = (math.log2(1 / 0.75) + 0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)) / 2
    assert distance([8, 0], [3, 3]) == pytest.approx(math.sqrt(divergence))


@given(COUNTS, COUNTS)
def test_symmetric_and_bounded(one, other):
    other = (other * 8)[: len(one)]
    found = distance(one, other)
    if found is not None:
        assert 0 <= found <= 1
        assert found == pytest.approx(distance(other, one))


@pytest.mark.parametrize("patients", [60, 400])
def test_two_samples_of_one_population_differ_as_much_as_chance_says(patients):
    rng = random.Random(1)
    found, chance = [], []
    for _ in range(200):
        samples = [rng.choices(range(6), [5, 4, 3, 2, 2, 1], k=patients) for _ in range(2)]
        counts = {str(n): [sample.count(cell) for cell in range(6)] for n, sample in enumerate(samples)}
        (pair,) = compare(counts)
        found.append(pair.distance**2)
        chance.append(pair.by_chance**2)
    assert sum(found) / 200 == pytest.approx(sum(chance) / 200, rel=0.15)


def test_a_real_difference_is_clear_and_a_small_one_of_small_silos_is_not():
    (large,) = compare({"a": [900, 100], "b": [700, 300]})
    (small,) = compare({"a": [18, 2], "b": [15, 5]})
    assert large.clear
    assert not small.clear


def test_noise_raises_what_chance_explains():
    counts = {"a": [60, 40], "b": [50, 50]}
    (without,), (noisy,) = compare(counts), compare(counts, epsilons={"a": 1.0, "b": None})
    assert noisy.by_chance > without.by_chance
    assert noisy.distance == without.distance


def hidden(counts, least=11):
    """What a silo without noise tells of a table."""
    return _cells(counts, least, exact=True)


AGES = [1, 2, 4, 9, 14, 19, 22, 17, 9, 3]


@pytest.mark.parametrize("sizes", [(60, 400), (80, 80), (150, 5000)])
def test_silos_of_one_population_are_not_clear_because_small_cells_are_hidden(sizes):
    rng = random.Random(3)
    clear = apart = 0
    for _ in range(200):
        samples = [rng.choices(range(len(AGES)), AGES, k=size) for size in sizes]
        counts = {str(n): hidden([sample.count(cell) for cell in range(len(AGES))]) for n, sample in enumerate(samples)}
        patients = {str(n): size for n, size in enumerate(sizes)}
        clear += any(pair.clear for pair in compare(counts, patients=patients))
        apart += any(pair.clear for pair in compare(counts))
    assert clear <= 10
    assert apart > 100, "else the case would show nothing"


def test_what_is_wholly_told_stays_as_unlike_as_it_is():
    counts = {"never labelled": hidden([0, 0, 400]), "labelled": hidden([380, 20, 0])}
    (pair,) = compare(counts, patients={"never labelled": 400, "labelled": 400})
    assert pair.distance == pytest.approx(1)
    assert pair.clear


def test_missing_patients_are_put_where_the_other_silo_has_some_and_no_further():
    (pair,) = compare({"a": [90, 0, 0], "b": [45, 45, 0]}, patients={"a": 100, "b": 100})
    (by_hand,) = compare({"a": [90, 10, 0], "b": [45, 45, 10]})
    assert pair.distance == pytest.approx(by_hand.distance)
    (alike,) = compare({"a": [50, 0, 0], "b": [500, 300, 200]}, patients={"a": 100, "b": 1000})
    assert alike.distance == pytest.approx(0, abs=1e-6)


@given(COUNTS, COUNTS, st.integers(2, 20))
def test_missing_patients_are_neither_lost_nor_made_up(one, other, least):
    other = (other * 8)[: len(one)]
    told, others = hidden(one, least), hidden(other, least)
    if any(told) and any(others):
        added, other_added = _filled(told, others, sum(one), sum(other))
        assert sum(added) == pytest.approx(sum(one))
        assert sum(other_added) == pytest.approx(sum(other))
        assert all(count == own for own, count in zip(told, added, strict=False) if own)
