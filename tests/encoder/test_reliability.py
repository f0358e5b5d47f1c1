"""A reliability diagram and counts of scores, of the same views: what is told of them together is of nobody alone."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.reliability import reliability
from silo_app.encoder.score_histogram import BINS, bins_of, segments

views = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 25)), max_size=90)


def arrays(rows):
    """Return probabilities, truth, patients and by which view each counts: the first with the finding, or without."""
    predicted = np.array([one for one, _, _ in rows], np.float64)
    truth = np.array([one for _, one, _ in rows], np.bool_)
    patients = np.array([f"p{one}" for _, _, one in rows], np.str_)
    counted = np.zeros(len(rows), np.bool_)
    for patient in set(patients):
        places = [place for place in range(len(rows)) if patients[place] == patient]
        counted[next((place for place in places if truth[place]), places[0])] = True
    return predicted, truth, patients, counted


@settings(max_examples=100, deadline=None)
@given(views, st.integers(2, 5))
def test_every_bin_has_enough_patients_of_either_kind_and_no_view_is_lost(rows, least):
    predicted, truth, patients, counted = arrays(rows)
    bins = reliability(predicted, truth, counted, least)
    enough = all((counted & (truth == side)).sum() >= least for side in (True, False))
    assert bool(bins) == enough
    assert sum(one.views for one in bins) == (len(rows) if enough else 0)
    for one in bins:
        inside = (bins_of(predicted) >= one.start * 10) & (bins_of(predicted) < one.stop * 10)
        assert (one.views, one.present) == (inside.sum(), truth[inside].sum())
        assert one.predicted == pytest.approx(predicted[inside].mean())
        assert all(len(set(patients[inside & (truth == side)])) >= least for side in (True, False))


@settings(max_examples=300, deadline=None)
@given(views, st.integers(2, 5))
def test_bins_and_segments_subtracted_from_each_other_are_of_enough_patients(rows, least):
    predicted, truth, patients, counted = arrays(rows)
    bins = reliability(predicted, truth, counted, least)
    edges = [0, *(one.stop * 10 for one in bins)]
    for side in (truth, ~truth) if bins else ():
        told = segments(bins_of(predicted[side]), counted[side], least, edges)
        assert sum(of for *_, of in told) == (counted & side).sum()
        joint = sorted({*edges, *(stop for _, stop, _, _ in told)})
        assert joint[-1] == BINS
        for start, stop in itertools.pairwise(joint):
            inside = side & (bins_of(predicted) >= start) & (bins_of(predicted) < stop)
            assert len(set(patients[inside])) >= least
            assert (start, stop, inside.sum(), (inside & counted).sum()) in told
