"""Distances between silos: zero for equals, one for strangers, and chance told from difference."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.privacy.unlike import compare, distance

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
