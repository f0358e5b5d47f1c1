"""The noise is the distribution that it claims to be."""

import math
from collections import Counter
from fractions import Fraction

import pytest

from silo_app.privacy.noise import discrete_laplace

DRAWS = 20_000


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(3), Fraction(28, 5)])
def test_frequencies_are_those_of_the_discrete_laplace_distribution(scale):
    """Chi-square over the cells with at least 20 expected draws, against its 1 - 1e-6 quantile (Wilson-Hilferty)."""
    seen = Counter(discrete_laplace(scale) for _ in range(DRAWS))
    ratio = math.exp(-1 / scale)
    weight = (1 - ratio) / (1 + ratio)
    expected = {k: DRAWS * weight * ratio ** abs(k) for k in range(-200, 201)}
    cells = [k for k, count in expected.items() if count >= 20]
    square = sum((seen[k] - expected[k]) ** 2 / expected[k] for k in cells)
    freedom = len(cells)
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    assert square < limit


def test_the_ratio_of_neighbouring_probabilities_is_the_promise():
    scale = Fraction(4)
    seen = Counter(discrete_laplace(scale) for _ in range(DRAWS))
    assert seen[0] / seen[1] == pytest.approx(math.exp(1 / 4), rel=0.15)
    assert abs(sum(k * n for k, n in seen.items()) / DRAWS) < 0.2


@pytest.mark.parametrize("scale", [Fraction(0), Fraction(-1)])
def test_a_scale_is_positive(scale):
    with pytest.raises(ValueError, match="positive"):
        discrete_laplace(scale)
