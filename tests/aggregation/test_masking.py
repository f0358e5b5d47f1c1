"""Masks: uniform below t, the same from the same key, gone from the right sum and from no other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import masking
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.ring import DEGREE, SLOT_MODULUS

T = SLOT_MODULUS


def rows(keys, minus=(), blocks=3):
    masks = Masks(keys, minus)
    out = np.zeros((blocks, DEGREE), dtype=np.uint64)
    for row in out:
        masks.apply(row)
    return out


def key(number):
    return bytes([number]) * 32


def test_a_mask_is_uniform_below_t():
    values = rows([key(1)], blocks=40)
    assert values.max() < T
    counts, _ = np.histogram(values.astype(np.float64), bins=32, range=(0, T))
    assert np.abs(counts / counts.mean() - 1).max() < 0.05
    assert abs(np.corrcoef(values[0], values[1])[0, 1]) < 0.05


def test_masks_differ_by_key_and_block_and_repeat_by_key():
    assert (rows([key(1)]) == rows([key(1)])).all()
    assert (rows([key(1)]) != rows([key(2)])).mean() > 0.99
    assert (rows([key(1)])[0] != rows([key(1)])[1]).mean() > 0.99


@settings(max_examples=20, deadline=None)
@given(
    plus=st.lists(st.integers(0, 200), max_size=6), minus=st.lists(st.integers(0, 200), max_size=6), seed=st.integers(0, 9)
)
def test_taking_off_undoes_adding(plus, minus, seed):
    original = np.random.default_rng(seed).integers(0, T, (2, DEGREE), dtype=np.uint64)
    row, add = original.copy(), Masks(map(key, plus), map(key, minus))
    take = Masks(map(key, minus), map(key, plus))
    for one in row:
        add.apply(one)
        assert one.max() < T
        take.apply(one)
    np.testing.assert_array_equal(row, original)


def test_as_many_masks_as_a_job_can_have_wrap_around_and_vanish():
    """64 of 128 silos survive: 64 x 64 pairwise masks and 64 self masks are taken off at once."""
    keys = [number.to_bytes(32, "big") for number in range(64 * 64 + 64)]
    total = sum(rows([one], blocks=1) for one in keys) % np.uint64(T)
    Masks((), keys).apply(total[0])
    assert not total.any()


@pytest.mark.parametrize("part", ["salt", "info", "secret"])
def test_a_key_depends_on_all_that_it_is_for(part):
    values = {"secret": b"s" * 32, "salt": b"r" * 32, "info": b"round 1"}
    other = {**values, part: b"other" * 8}

    def derived(values):
        return masking.derive(values["secret"], salt=values["salt"], info=values["info"])

    assert derived(values) == derived(values) != derived(other)
