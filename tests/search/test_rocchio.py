import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.errors import ConfigInvalid
from silo_app.search.rocchio import Weights, mean_embedding, refined

D = 12


def units(seed, count):
    vectors = np.random.default_rng(seed).standard_normal((count, D))
    return list((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


seeds = st.integers(0, 10**6)
few = st.integers(0, 4)
weights = st.floats(0, 2)


@settings(max_examples=50, deadline=None)
@given(seeds, few, few)
def test_the_result_is_a_unit_vector(seed, more, less):
    query, *others = units(seed, 1 + more + less)
    found = refined(query, others[:more], others[more:])
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seeds, few, few, st.randoms())
def test_the_order_of_examples_does_not_matter(seed, more, less, random):
    query, *others = units(seed, 1 + more + less)
    wanted, unwanted = others[:more], others[more:]
    shuffled = random.sample(wanted, more), random.sample(unwanted, less)
    assert np.allclose(refined(query, wanted, unwanted), refined(query, *shuffled), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 4))
def test_more_of_the_query_itself_changes_nothing(seed, times):
    (query,) = units(seed, 1)
    assert np.allclose(refined(query, [query] * times), query, atol=1e-6)


def test_without_examples_the_query_stays_bit_by_bit():
    (query,) = units(0, 1)
    assert np.array_equal(refined(query), query)


@settings(max_examples=50, deadline=None)
@given(seeds, weights.filter(lambda value: value > 0.01))
def test_more_brings_nearer_and_less_takes_away(seed, weight):
    query, example = units(seed, 2)
    before = float(query @ example)
    toward = float(refined(query, [example], weights=Weights(more=weight)) @ example)
    away = float(refined(query, [], [example], Weights(less=weight)) @ example)
    assert away - 1e-6 <= before <= toward + 1e-6
    assert toward - away > 1e-4


@settings(max_examples=50, deadline=None)
@given(seeds, few, few, weights, weights)
def test_it_is_rocchios_formula(seed, more, less, b, c):
    query, *others = units(seed, 1 + more + less)
    expected = query.astype(np.float64)
    if more:
        expected = expected + b * np.mean(others[:more], axis=0, dtype=np.float64)
    if less:
        expected = expected - c * np.mean(others[more:], axis=0, dtype=np.float64)
    if np.linalg.norm(expected) < 1e-3:
        return
    found = refined(query, others[:more], others[more:], Weights(more=b, less=c))
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_query_that_its_examples_cancel_is_refused():
    (query,) = units(1, 1)
    with pytest.raises(ConfigInvalid, match="cancel: nothing is left to search for"):
        refined(query, [], [query], Weights(less=1.0))


@pytest.mark.parametrize("great", [1e200, 1.7e308])
def test_a_weight_that_outweighs_all_leaves_its_examples(great):
    query, one, other = units(5, 3)
    assert np.allclose(refined(query, [one], [other], Weights(more=great)), one, atol=1e-6)
    assert np.allclose(refined(query, [one], [other], Weights(less=great)), -other, atol=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_weights_below_zero_are_refused(value):
    with pytest.raises(ConfigInvalid, match="not all numbers from 0 on"):
        Weights(more=value)


def test_the_usual_weights_are_those_of_the_book():
    assert Weights() == Weights(query=1, more=0.75, less=0.15)


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 5))
def test_the_mean_of_a_cases_images_is_a_unit_vector_between_them(seed, count):
    vectors = units(seed, count)
    mean = mean_embedding(vectors)
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)
    assert (
        sum(float(mean @ vector) for vector in vectors)
        >= max(sum(float(one @ other) for other in vectors) for one in vectors) - 1e-5
    )
