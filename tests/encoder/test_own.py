"""What a silo keeps for itself: taken over with the sum that contains its update, and only then."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.aggregation.sending import part_of
from silo_app.encoder.model import build, layout_of, to_vector
from silo_app.encoder.own import Own, shared_size

SIZE = 4


def vector(*values):
    return np.array(values or range(SIZE), np.float32)


def test_what_was_trained_counts_only_when_its_sum_is_opened():
    own = Own.begun(SIZE, scaffold=True).trained(vector(7), vector(), vector(8, 1))
    assert len(own.personal) == len(own.squares) == 0
    assert not own.control.any()
    counted = own.closed(vector(), share=1.0, contributed=True)
    assert (counted.personal.tolist(), counted.squares.tolist()) == ([7], [8, 1])
    for missed in (own.voided(), own.closed(vector(), share=1.0, contributed=False)):
        assert len(missed.personal) == len(missed.next_personal) == len(missed.squares) == len(missed.next_squares) == 0
        assert not missed.control.any()


def test_a_silo_that_was_away_takes_the_others_mean():
    own = Own.begun(SIZE, scaffold=True).closed(vector(), share=0.5, contributed=False)
    np.testing.assert_array_equal(own.shared_control, vector() / 2)
    np.testing.assert_array_equal(own.correction, vector() / 2)


def test_without_scaffold_the_update_travels_alone():
    own = Own.begun(SIZE, scaffold=False).trained(vector(7), np.zeros(0, np.float32))
    assert own.sent(vector(), 0.5) is not None
    np.testing.assert_array_equal(own.sent(vector(), 0.5), vector())
    assert len(own.closed(np.zeros(0, np.float32), share=1.0, contributed=True).shared_control) == 0


@given(
    weights=st.lists(st.integers(1, 50), min_size=2, max_size=5),
    rounds=st.lists(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1)), min_size=5, max_size=5), max_size=4),
)
def test_c_is_always_the_mean_of_the_silos_control_variates(weights, rounds):
    """Whoever is away, and however little some count for."""
    rng = np.random.default_rng(0)
    images = np.array(weights)
    silos = [Own.begun(SIZE, scaffold=True) for _ in images]
    for told in rounds:
        there = [place for place in range(len(silos)) if told[place][0]]
        if not there:
            continue
        silos = [one.trained(np.zeros(0, np.float32), rng.normal(size=SIZE).astype(np.float32)) for one in silos]
        weigh = {place: part_of(weights[place], told[place][1]) for place in there}  # as they are summed: whole images
        sent = {place: silos[place].sent(vector(), weigh[place] / weights[place])[SIZE:] for place in there}
        change = (sum(weigh[place] * sent[place] for place in there) / sum(weigh.values())).astype(np.float32)
        share = sum(weigh.values()) / images.sum()
        silos = [one.closed(change, share=share, contributed=place in there) for place, one in enumerate(silos)]
    mean = sum(count * one.control for count, one in zip(images, silos, strict=True)) / images.sum()
    for one in silos:
        np.testing.assert_allclose(one.shared_control, mean, atol=1e-5)


def test_it_survives_its_tensors():
    own = Own(*(vector(number) for number in range(7)))
    assert all(np.array_equal(value, own.tensors()[name]) for name, value in Own.of(own.tensors()).tensors().items())


@pytest.mark.parametrize(("personal", "kept"), [("none", 0), ("head", 2 * 16 + 2), ("ditto", 0)])
def test_a_personal_head_is_no_part_of_what_is_shared(spec, personal, kept):
    model = build(spec, 1)
    assert shared_size(layout_of(model), personal) == len(to_vector(model)) - kept
