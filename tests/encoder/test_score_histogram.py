"""What a silo tells of its scores, and that figures from it hold the true figure between their bounds."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from silo_app.encoder.metrics import SPECIFICITY
from silo_app.encoder.score_histogram import BINS, bins_of, pooled_auc, pooled_sensitivity, segments

views = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12)), max_size=60)
silos = st.lists(st.tuples(views, views), min_size=1, max_size=3)


def told(rows, least):
    scores = np.array([score for score, _ in rows], np.float64)
    return segments(bins_of(scores), np.array([f"p{patient}" for _, patient in rows]), least)


@settings(max_examples=100, deadline=None)
@given(views, st.integers(2, 6))
def test_segments_cover_the_grid_and_each_holds_enough_patients(rows, least):
    result = told(rows, least)
    if len({patient for _, patient in rows}) < least:
        assert result == []
        return
    assert [result[0][0], *(stop for _, stop, _ in result)] == [*(start for start, _, _ in result), BINS]
    assert sum(count for _, _, count in result) == len(rows)
    for start, stop, count in result:
        inside = [patient for score, patient in rows if start <= min(int(score * BINS), BINS - 1) < stop]
        assert len(inside) == count
        assert len(set(inside)) >= least


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
    patients = np.arange(4000).astype(str)
    sides = [[segments(bins_of(scores[side]), patients[side], 11)] for side in (truth, ~truth)]
    area = pooled_auc(*sides)
    assert area.value == pytest.approx(roc_auc_score(truth, scores), abs=0.002)
    assert area.most - area.least < 0.05


def test_silos_whose_scores_lie_apart_pool_lower_than_each_alone():
    low, high = [(10, 11, 50)], [(20, 21, 50)]
    other_low, other_high = [(60, 61, 50)], [(70, 71, 50)]
    assert pooled_auc([high], [low]).value == pooled_auc([other_high], [other_low]).value == 1
    assert pooled_auc([high, other_high], [low, other_low]).value == 0.75
