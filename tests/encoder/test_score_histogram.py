"""What a silo tells of its scores, and that figures from it hold the true figure between their bounds."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from silo_app.encoder.metrics import SPECIFICITY
from silo_app.encoder.score_histogram import BINS, bins_of, pooled_auc, pooled_sensitivity, segments

views = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12)), max_size=60)
silos = st.lists(st.tuples(views, views), min_size=1, max_size=3)


def counted(patients):
    """Each patient counts by the first view."""
    return np.array([patient not in patients[:place] for place, patient in enumerate(patients)], np.bool_)


def told(rows, least):
    scores = np.array([score for score, _ in rows], np.float64)
    found = segments(bins_of(scores), counted([patient for _, patient in rows]), least)
    return [(start, stop, views) for start, stop, views, _ in found]


@settings(max_examples=100, deadline=None)
@given(views, st.integers(2, 6), st.sampled_from([(0, BINS), (0, 30, BINS)]))
def test_segments_cover_the_grid_and_each_holds_enough_patients(rows, least, edges):
    scores = np.array([score for score, _ in rows], np.float64)
    places, by = bins_of(scores), counted([patient for _, patient in rows])
    result = segments(places, by, least, edges)
    if any((by & (places >= start) & (places < stop)).sum() < least for start, stop in itertools.pairwise(edges)):
        assert result == []
        return
    assert [result[0][0], *(stop for _, stop, _, _ in result)] == [*(start for start, _, _, _ in result), BINS]
    assert set(edges) <= {0, *(stop for _, stop, _, _ in result)}
    assert sum(count for _, _, count, _ in result) == len(rows)
    assert sum(patients for *_, patients in result) == len({patient for _, patient in rows})
    for start, stop, count, patients in result:
        inside = [patient for (_, patient), place in zip(rows, places, strict=True) if start <= place < stop]
        assert len(inside) == count
        assert len(set(inside)) >= patients >= least


@settings(max_examples=100, deadline=None)
@given(silos, st.integers(2, 4))
def test_the_true_figure_lies_between_the_least_and_the_most(silos, least):
    sides = [[side for side in silo if told(side, least)] for silo in silos]
    whole = [silo for silo, kept in zip(silos, sides, strict=True) if len(kept) == 2]
    assume(whole)
    present = np.array([score for silo in whole for score, _ in silo[0]])
    absent = np.array([score for silo in whole for score, _ in silo[1]])
    told_sides = [[told(silo[place], least) for silo in whole] for place in (0, 1)]
    area = pooled_auc(*told_sides)
    truth = [1] * len(present) + [0] * len(absent)
    true_area = roc_auc_score(truth, [*present, *absent])
    assert area.least - 1e-9 <= true_area <= area.most + 1e-9
    assert area.least <= area.value <= area.most
    threshold = next(one for one in sorted(absent) if (absent <= one).mean() >= SPECIFICITY - 1e-9)
    sensitivity = pooled_sensitivity(*told_sides)
    assert sensitivity.least - 1e-9 <= (present > threshold).mean() <= sensitivity.most + 1e-9


def test_many_patients_leave_little_room():
    rng = np.random.default_rng(0)
    truth = np.arange(4000) % 2 == 0
    scores = 1 / (1 + np.exp(-rng.normal(truth * 1.5 - 0.75, 1)))
    sides = [[told([(score, place) for place, score in enumerate(scores[side])], 11)] for side in (truth, ~truth)]
    area = pooled_auc(*sides)
    assert area.value == pytest.approx(roc_auc_score(truth, scores), abs=0.002)
    assert area.most - area.least < 0.05


def test_silos_whose_scores_lie_apart_pool_lower_than_each_alone():
    low, high = [(10, 11, 50)], [(20, 21, 50)]
    other_low, other_high = [(60, 61, 50)], [(70, 71, 50)]
    assert pooled_auc([high], [low]).value == pooled_auc([other_high], [other_low]).value == 1
    assert pooled_auc([high, other_high], [low, other_low]).value == 0.75
