import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.reliability import reliability

views = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 15)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(views, st.integers(2, 5))
def test_every_bin_has_enough_patients_of_either_kind_and_no_view_is_lost(rows, least):
    predicted = np.array([one for one, _, _ in rows], np.float64)
    truth = np.array([one for _, one, _ in rows], np.bool_)
    patients = np.array([f"p{one}" for _, _, one in rows], np.str_)
    bins = reliability(predicted, truth, patients, least)
    enough = all(len(set(patients[truth == side])) >= least for side in (True, False))
    assert bool(bins) == enough
    assert sum(one.views for one in bins) == (len(rows) if enough else 0)
    tenth = np.minimum((predicted * 10).astype(int), 9)
    for one in bins:
        inside = (tenth >= one.start) & (tenth < one.stop)
        assert (one.views, one.present) == (inside.sum(), truth[inside].sum())
        assert one.predicted == pytest.approx(predicted[inside].mean())
        assert all(len(set(patients[inside & (truth == side)])) >= least for side in (True, False))
