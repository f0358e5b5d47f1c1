"""Noise has the distribution that the accountant counts on, and no bit of its key is lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silo_app.keystream import KEY_BYTES
from silo_app.privacy.gaussian import GaussianNoise

KEY = bytes(range(KEY_BYTES))


def test_it_is_standard_normal():
    drawn = GaussianNoise(KEY).draw(400_001)
    assert drawn.shape == (400_001,)
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    assert float(np.abs(drawn).max()) > 4
    first, second = drawn[:200_000], drawn[200_001:]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first**2, second**2)[0, 1]) < 0.01
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01


@given(bit=st.integers(0, 8 * KEY_BYTES - 1))
def test_every_bit_of_the_key_matters(bit):
    """Torch's generator on the CPU keeps 32 bits of a seed: too few to be secret."""
    other = bytearray(KEY)
    other[bit // 8] ^= 1 << bit % 8
    ours, theirs = GaussianNoise(KEY).draw(64), GaussianNoise(bytes(other)).draw(64)
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 0.6


def test_a_stream_goes_on_and_its_key_repeats_it():
    one, other = GaussianNoise(KEY), GaussianNoise(KEY)
    parts = [one.draw(count) for count in (1, 7, 0, 100)]
    np.testing.assert_array_equal(np.concatenate(parts), np.concatenate([other.draw(count) for count in (1, 7, 0, 100)]))
    assert not np.array_equal(one.draw(50), parts[-1][:50])


def test_two_secret_streams_differ():
    assert not np.array_equal(GaussianNoise.secret().draw(8), GaussianNoise.secret().draw(8))


@pytest.mark.parametrize("key", [b"", bytes(31)])
def test_a_short_key_is_no_key(key):
    with pytest.raises(ValueError, match="key"):
        GaussianNoise(key)
