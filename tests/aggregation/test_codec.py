"""Integers in fields: identity, edges, bounds, and rounding that loses nothing in the long run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from silo_app.aggregation.codec import WIDTHS, FieldPlan, dequantise, next_scales, quantise
from silo_app.aggregation.layout import Layout
from silo_app.aggregation.ring import DEGREE, SLOT_MODULUS


def test_fields_of_every_width_fit_a_slot_with_their_signs():
    for bits in WIDTHS:
        plan = FieldPlan(bits)
        extreme = sum(plan.limit << (bits * field) for field in range(plan.fields))
        assert extreme <= (SLOT_MODULUS - 1) // 2
        assert plan.blocks(plan.fields * DEGREE) == 1
        assert plan.blocks(plan.fields * DEGREE + 1) == 2
    assert {bits: FieldPlan(bits).fields for bits in WIDTHS} == {10: 5, 12: 4, 16: 3, 25: 2}


@settings(max_examples=40, deadline=None)
@given(data=st.data(), bits=st.sampled_from(WIDTHS), part=st.floats(0, 1))
def test_unpacking_undoes_packing(data, bits, part):
    plan = FieldPlan(bits)
    size = 1 + int(part * (plan.fields * DEGREE - 1))
    edges = st.sampled_from([-plan.limit, -1, 0, 1, plan.limit]) | st.integers(-plan.limit, plan.limit)
    values = data.draw(arrays.arrays(np.int32, size, elements=edges, fill=edges))
    slots = plan.pack(values)
    assert slots.dtype == np.uint64
    assert slots.max() < SLOT_MODULUS
    unpacked = plan.unpack(slots)
    np.testing.assert_array_equal(unpacked[:size], values)
    assert not unpacked[size:].any()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_at_the_edge_of_all_fields_are_exact(bits, sign):
    plan = FieldPlan(bits)
    parts = [np.full(DEGREE + 7, sign * part, dtype=np.int32) for part in (plan.limit - 9, 4, 5)]
    total = sum(plan.pack(part) for part in parts) % np.uint64(SLOT_MODULUS)
    unpacked = plan.unpack(total)
    np.testing.assert_array_equal(unpacked[: DEGREE + 7], sign * plan.limit)
    assert not unpacked[DEGREE + 7 :].any()


@given(bits=st.sampled_from(WIDTHS), samples=st.lists(st.integers(1, 10**7), min_size=2, max_size=128))
def test_quotas_of_all_silos_together_never_overflow_a_field(bits, samples):
    plan = FieldPlan(bits)
    weights = [count / sum(samples) for count in samples]
    assert sum(plan.quota(weight, len(samples)) for weight in weights) <= plan.limit


@settings(max_examples=50, deadline=None)
@given(
    values=arrays.arrays(np.float32, 50, elements=st.floats(-2.0, 2.0, width=32)),
    bits=st.sampled_from(WIDTHS),
    weight=st.floats(0.01, 1.0),
    seed=st.integers(0, 9),
)
def test_rounding_is_off_by_less_than_a_step_and_clipping_stays_in_the_quota(values, bits, weight, seed):
    plan = FieldPlan(bits)
    steps = np.full(50, np.float32(1.0 / plan.levels(2)))
    quota = plan.quota(weight, 2)
    integers = quantise(values, steps, weight, quota, np.random.default_rng(seed))
    assert np.abs(integers).max() <= quota
    error = np.abs(dequantise(integers, steps, weight) - values)[np.abs(values) <= 1.0]
    assert (error <= steps[0] / weight * 1.001 + 1e-6).all()


def test_rounding_is_without_bias():
    steps = np.full(200_000, np.float32(0.01))
    values = np.full(200_000, np.float32(0.0123))
    integers = quantise(values, steps, 1.0, 2000, np.random.default_rng(0))
    assert set(np.unique(integers)) == {1, 2}
    assert abs(dequantise(integers, steps, 1.0).mean() - 0.0123) < 5e-5


def test_scales_follow_the_largest_change_of_each_tensor():
    layout = Layout(("a", "empty", "b", "still"), ((2, 2), (0,), (3,), (5,)))
    update = np.array([1, -4, 0, 2, 0.5, 0, 0.25, 0, 0, 0, 0, 0], dtype=np.float32)
    resolution = np.full(4, 1e-3)
    none = np.zeros(4)
    scales = next_scales(update, layout, resolution=resolution, kept=none, headroom=2.0, floor=1e-6)
    np.testing.assert_allclose(scales, [8.0, 2e-3, 1.0, 2e-3])
    still = next_scales(update, layout, resolution=none, kept=none, headroom=2.0, floor=1e-6)
    np.testing.assert_allclose(still, [8.0, 1e-6, 1.0, 1e-6])
    kept = next_scales(update, layout, resolution=none, kept=np.full(4, 2.0), headroom=2.0, floor=1e-6)
    np.testing.assert_allclose(kept, [8.0, 2.0, 2.0, 2.0])
