"""Random numbers are a cipher's keystream, and every number is as likely as any other."""

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silo_app.keystream import KEY_BYTES
from silo_app.privacy.uniform import UniformNumbers

KEY = bytes(range(KEY_BYTES))


def keystream(key, words):
    """The definition: the encrypted counters, one block after the other."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  (one block at a time)
    blocks = b"".join(cipher.update(counter.to_bytes(16, "big")) for counter in range(-(-words // 4)))
    return [int.from_bytes(blocks[4 * word : 4 * word + 4], "little") for word in range(words)]


@pytest.mark.parametrize("bound", [1, 2, 40_001, 3 * 2**30, 2**32 - 1, 2**32])
def test_they_are_the_keystream_without_what_would_be_biased(bound):
    kept = [word % bound for word in keystream(KEY, 1000) if word < 2**32 // bound * bound]
    stream = UniformNumbers(KEY)
    drawn = np.concatenate([stream.below(bound, count) for count in (1, 0, 7, 400)])
    assert drawn.tolist() == kept[:408]


def test_no_number_is_likelier_than_another():
    """Three quarters of 2^32: by the remainder alone the first third would come twice as often."""
    bound = 3 * 2**30
    drawn = UniformNumbers(KEY).below(bound, 30_000)
    assert stats.chisquare(np.bincount(drawn // 2**30, minlength=3)).pvalue > 0.001


@given(bit=st.integers(0, 8 * KEY_BYTES - 1))
def test_every_bit_of_the_key_matters(bit):
    other = bytearray(KEY)
    other[bit // 8] ^= 1 << bit % 8
    assert np.mean(UniformNumbers(KEY).below(2**32, 64) == UniformNumbers(bytes(other)).below(2**32, 64)) < 0.1


def test_the_key_of_secret_numbers_is_from_the_system_and_whole(monkeypatch):
    assert not np.array_equal(UniformNumbers.secret().below(2**32, 8), UniformNumbers.secret().below(2**32, 8))
    monkeypatch.setattr(secrets, "token_bytes", lambda count: KEY[:count])
    assert UniformNumbers.secret().below(2**32, 8).tolist() == keystream(KEY, 8)


@pytest.mark.parametrize("key", [b"", bytes(31)])
def test_a_short_key_is_no_key(key):
    with pytest.raises(ValueError, match="key"):
        UniformNumbers(key)
