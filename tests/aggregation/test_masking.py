"""Masks: uniform below t, the same from the same key, gone from the right sum and from no other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import masking
from silo_app.aggregation.cipher import plain_modulus
from silo_app.aggregation.masking import Masks
from silo_app.aggregation.ring import DEGREE

T = plain_modulus()


def rows(keys, minus=(), blocks=3, modulus=T):
    masks = Masks(keys, minus, modulus)
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


def test_what_is_above_t_is_drawn_again(monkeypatch):
    """With a modulus that half of all draws miss, redrawing happens all the time, and stays uniform."""
    modulus = T // 2
    values = rows([key(3)], modulus=modulus)
    assert values.max() < modulus
    counts, _ = np.histogram(values.astype(np.float64), bins=16, range=(0, modulus))
    assert np.abs(counts / counts.mean() - 1).max() < 0.1
    assert (values == rows([key(3)], modulus=modulus)).all()
    first = rows([key(3)])
    np.testing.assert_array_equal(values[first < modulus], first[first < modulus])


@settings(max_examples=20, deadline=None)
@given(
    plus=st.lists(st.integers(0, 200), max_size=6), minus=st.lists(st.integers(0, 200), max_size=6), seed=st.integers(0, 9)
)
def test_taking_off_undoes_adding(plus, minus, seed):
    original = np.random.default_rng(seed).integers(0, T, (2, DEGREE), dtype=np.uint64)
    row, add = original.copy(), Masks(map(key, plus), map(key, minus), T)
    take = Masks(map(key, minus), map(key, plus), T)
    for one in row:
        add.apply(one)
        assert one.max() < T
        take.apply(one)
    np.testing.assert_array_equal(row, original)


def test_as_many_masks_as_a_job_can_have_do_not_overflow():
    """64 of 128 silos survive: 64 x 64 pairwise masks and 64 self masks are taken off at once."""
    assert (64 * 64 + 128) * T < 2**63


@pytest.mark.parametrize("part", ["salt", "info", "secret"])
def test_a_key_depends_on_all_that_it_is_for(part):
    values = {"secret": b"s" * 32, "salt": b"r" * 32, "info": b"round 1"}
    other = {**values, part: b"other" * 8}

    def derived(values):
        return masking.derive(values["secret"], salt=values["salt"], info=values["info"])

    assert derived(values) == derived(values) != derived(other)
