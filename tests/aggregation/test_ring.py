"""Words on the wire, and sums modulo Q."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.aggregation import ring


def words(seed, blocks, below=ring.MODULUS):
    return np.random.default_rng(seed).integers(0, below, (blocks, ring.DEGREE), dtype=np.uint64)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), blocks=st.integers(1, 3))
def test_words_cross_the_wire_unchanged_in_60_bits(seed, blocks):
    sent = words(seed, blocks, 1 << 60)
    packed = ring.to_wire(sent)
    assert packed.nbytes == ring.wire_bytes(blocks) == sent.nbytes * 60 // 64
    np.testing.assert_array_equal(ring.from_wire(packed), sent)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_any_bytes_give_words_of_60_bits(seed):
    junk = np.random.default_rng(seed).integers(0, 256, ring.wire_bytes(1), dtype=np.uint8)
    assert ring.from_wire(junk).max() < 1 << 60


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_sums_are_modulo_q(seed):
    a, b = words(seed, 2), words(seed + 1, 2)
    a[0, :3], b[0, :3] = ring.MODULUS - 1, (0, 1, ring.MODULUS - 1)
    expected = (a.astype(object) + b.astype(object)) % ring.MODULUS
    ring.add(a, b)
    np.testing.assert_array_equal(a, expected.astype(np.uint64))
