"""What people read of a similarity: the share of random pairs of different patients that are less alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from silo_app.index.likeness import estimate
from silo_app.policy.levels import Levels, levels_of, share_beyond
from silo_app.policy.likeness import PERCENTS, Likeness

CURVE = tuple(0.5 * percent / 100 for percent in PERCENTS)
LIKENESS = Likeness(patients=0, similar=CURVE)
READ = TypeAdapter(Levels)


def unit_rows(seed, count, dimension=16):
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_reading_is_the_share_of_all_pairs_within_its_estimate():
    vectors = unit_rows(1, 600)
    cases = [f"{i:032x}" for i in range(len(vectors))]
    levels = levels_of(estimate(vectors, cases, cases), views=len(vectors), least=11)
    scores = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    for similarity in (-0.4, -0.1, 0.0, 0.2, 0.4, 0.6):
        said = share_beyond(levels, similarity)
        assert said == pytest.approx(100 * float(np.mean(scores < similarity)), abs=1.5)


def test_no_level_says_anything_of_few_pairs():
    told = [percent for percent, _ in levels_of(LIKENESS, views=20, least=11)]  # 190 pairs
    assert told == [float(percent) for percent in range(10, 100, 10)]
    assert levels_of(LIKENESS, views=4, least=11) == ()
    percents = [percent for percent, _ in levels_of(LIKENESS, views=100_000, least=11)]
    assert percents == [percent for percent in PERCENTS if 0 < percent < 100]


def test_rounding_beyond_the_same_image_is_no_nonsense():
    alike = Likeness(patients=0, similar=(0.0,) * 5 + (1.000149,) * (len(PERCENTS) - 5))
    assert READ.validate_python(levels_of(alike, views=1000, least=11), strict=True)[-1][1] == 1.0


def test_where_nobody_is_a_stranger_nothing_is_told():
    vectors = unit_rows(2, 50)
    alone = estimate(vectors, [f"{i:032x}" for i in range(50)], ["p"] * 50)
    assert levels_of(alone, views=50, least=1) == ()


@settings(deadline=None)
@given(views=st.integers(0, 3000), least=st.integers(1, 100), more=st.integers(0, 100))
def test_a_stricter_policy_tells_no_other_level(views, least, more):
    assert set(levels_of(LIKENESS, views=views, least=least + more)) <= set(levels_of(LIKENESS, views=views, least=least))


def test_the_ends_say_at_least():
    levels = ((1.0, 0.1), (50.0, 0.2), (99.9, 0.4))
    assert [share_beyond(levels, similarity) for similarity in (-1, 0.0999, 0.1, 0.15, 0.2, 0.39, 0.4, 1.0)] == [
        0.0,
        0.0,
        1.0,
        25.5,
        50.0,
        97.4,
        99.9,
        99.9,
    ]
    assert share_beyond((), 0.5) is None
    assert share_beyond(((50.0, 0.2), (60.0, 0.2), (70.0, 0.3)), 0.2) == 60.0


@given(
    similar=st.lists(st.floats(-1, 1), min_size=len(PERCENTS), max_size=len(PERCENTS)),
    pair=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_who_is_more_alike_is_never_read_as_less(similar, pair):
    likeness = Likeness(patients=0, similar=tuple(sorted(similar)))
    levels = READ.validate_python(levels_of(likeness, views=1000, least=11), strict=True)
    if levels:
        low, high = (share_beyond(levels, similarity) for similarity in sorted(pair))
        assert 0 <= low <= high < 100


NONSENSE = {
    "percentages that fall": ((50.0, 0.1), (40.0, 0.2)),
    "one percentage twice": ((50.0, 0.1), (50.0, 0.2)),
    "similarities that fall": ((40.0, 0.2), (50.0, 0.1)),
    "nothing is below": ((0.0, 0.1),),
    "all are": ((100.0, 0.1),),
    "more than alike": ((50.0, 1.5),),
    "no number": ((50.0, float("nan")),),
    "no pair": ((50.0,),),
    "a word": (("50", 0.1),),
    "too many": tuple((1.0 + number, 0.1) for number in range(33)),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_refused(kind):
    with pytest.raises(ValidationError):
        READ.validate_python(NONSENSE[kind], strict=True)
