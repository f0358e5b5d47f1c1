"""BFV as we use it: exact sums, one key from one secret, and nothing that shows it."""

import copy
import pickle

import numpy as np
import pytest

from silo_app.aggregation import ring
from silo_app.aggregation.cipher import SECRET_BYTES, Cipher, new_secret
from silo_app.errors import KeyRefused, NotReady


@pytest.fixture(scope="module")
def secret():
    return bytes(range(SECRET_BYTES))


@pytest.fixture(scope="module")
def cipher(secret):
    return Cipher(secret)


def slots(seed, blocks=1):
    return np.random.default_rng(seed).integers(0, ring.SLOT_MODULUS, (blocks, ring.DEGREE), dtype=np.uint64)


def encrypt(cipher, rows):
    words, seeds = zip(*cipher.encrypt(rows), strict=True)
    return np.stack(words), np.stack(seeds)


def decrypt(cipher, words, seeds):
    return np.stack(list(cipher.decrypt(words, seeds)))


def total_of(encrypted):
    total = encrypted[0][0].copy()
    for words, _ in encrypted[1:]:
        ring.add(total, words)
    return total, np.stack([seeds for _, seeds in encrypted])


@pytest.mark.parametrize("silos", [1, 2, 3, 32, ring.MAX_SILOS])
def test_sums_of_uniform_slots_are_exact(cipher, silos):
    parts = [slots(seed) for seed in range(silos)]
    total, seeds = total_of([encrypt(cipher, part) for part in parts])
    expected = sum(parts) % np.uint64(ring.SLOT_MODULUS)  # 128 sums of 50 bits stay below 2^64
    np.testing.assert_array_equal(decrypt(cipher, total, seeds), expected)


@pytest.mark.parametrize("value", [0, 1, (1 << 49) - 1, 1 << 49, (1 << 50) - 1])
def test_extreme_slots_survive(cipher, value):
    part = np.full((2, ring.DEGREE), value, dtype=np.uint64)
    words, seeds = encrypt(cipher, part)
    np.testing.assert_array_equal(decrypt(cipher, words, seeds[np.newaxis]), part)


@pytest.mark.parametrize("used", [0, 1, 100, ring.DEGREE - 1])
def test_empty_slots_at_the_end_survive(cipher, used):
    """SEAL leaves out what is zero there."""
    part = slots(4)
    part[0, used:] = 0
    words, seeds = encrypt(cipher, part)
    np.testing.assert_array_equal(decrypt(cipher, words, seeds[np.newaxis]), part)


@pytest.mark.parametrize("packing", [1, 3])
def test_plaintexts_in_another_form_are_no_slots(cipher, packing):
    saved = cipher._plain_frame + bytes(8 * ring.DEGREE)
    assert not cipher._coefficients(saved).any()
    with pytest.raises(NotReady, match="another form"):
        cipher._coefficients(saved[:5] + bytes([packing]) + saved[6:])
    with pytest.raises(NotReady, match="another form"):
        cipher._coefficients(saved[:-8])


def test_one_secret_is_one_key_everywhere(cipher, secret):
    again = Cipher(secret)
    assert again.key_id == cipher.key_id
    words, seeds = encrypt(again, slots(1))
    np.testing.assert_array_equal(decrypt(cipher, words, seeds[np.newaxis]), slots(1))


def test_another_secret_is_another_key(cipher):
    other = Cipher(new_secret())
    assert other.key_id != cipher.key_id
    words, seeds = encrypt(cipher, slots(1))
    assert (decrypt(other, words, seeds[np.newaxis]) != slots(1)).mean() > 0.99


def test_the_same_slots_never_look_the_same(cipher):
    first, second = encrypt(cipher, slots(1)), encrypt(cipher, slots(1))
    assert (first[0] != second[0]).mean() > 0.99
    assert (first[1] != second[1]).any()


def test_ciphertexts_look_uniform_whatever_they_hold(cipher):
    words, _ = encrypt(cipher, np.zeros((4, ring.DEGREE), dtype=np.uint64))
    counts, _ = np.histogram(words.astype(np.float64), bins=16, range=(0, ring.MODULUS))
    assert np.abs(counts / counts.mean() - 1).max() < 0.15
    assert words.max() < ring.MODULUS


def test_a_key_is_not_copied_pickled_or_shown(cipher, secret):
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not serialized"):
            way(cipher)
    assert secret.hex() not in repr(cipher)
    assert secret not in repr(vars(cipher)).encode()


def test_a_secret_of_another_length_is_refused():
    with pytest.raises(KeyRefused, match="63 bytes instead of 64"):
        Cipher(bytes(63))
