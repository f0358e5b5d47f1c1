from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.partition import SMALLEST_SHARE, dirichlet


def population(sick, healthy):
    kinds = {(0, f"s{i}"): "Pneumonia" for i in range(sick)}
    return kinds | {(0, f"h{i}"): "No Finding" for i in range(healthy)}


@given(
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(1, 6),
    st.floats(0.05, 1e6),
    st.integers(0, 2**31),
)
def test_everybody_has_one_hospital_and_no_hospital_is_too_small(sick, healthy, hospitals, alpha, seed):
    kinds = population(sick, healthy)
    if len(kinds) < hospitals:
        with pytest.raises(SampleInvalid, match=f"{len(kinds)} patients cannot be divided among {hospitals}"):
            dirichlet(kinds, hospitals, alpha, seed)
        return
    places = dirichlet(kinds, hospitals, alpha, seed)
    sizes = Counter(places.values())
    assert set(places) == set(kinds)
    assert set(sizes) == set(range(hospitals))
    assert min(sizes.values()) >= max(1, int(SMALLEST_SHARE * len(kinds) / hospitals))
    assert places == dirichlet(dict(reversed(kinds.items())), hospitals, alpha, seed)


def skew(alpha):
    """Return how unlike three hospitals are: the mean spread of their share of the sick, over seeds."""
    kinds = population(300, 300)
    spreads = []
    for seed in range(12):
        places = dirichlet(kinds, 3, alpha, seed)
        shares = [np.mean([kinds[p] == "Pneumonia" for p, h in places.items() if h == i]) for i in range(3)]
        spreads.append(np.ptp(shares))
    return np.mean(spreads)


def test_a_small_alpha_makes_hospitals_unlike():
    assert skew(0.1) > skew(1.0) > skew(1000.0)
    assert skew(1000.0) < 0.1


def test_every_hospital_can_be_evaluated_on_common_kinds():
    kinds = population(400, 200)
    for seed in range(10):
        counts = Counter((h, kinds[p]) for p, h in dirichlet(kinds, 3, 0.1, seed).items())
        assert min(counts[h, kind] for h in range(3) for kind in ("Pneumonia", "No Finding")) >= 1
