"""Which classes of neighbours are told: by what is told of all, nobody counts the few who are left over."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.near_told import near_told, tellable_classes
from silo_app.encoder.retrieval import Ranked

NAMES = ["Mass", "Pneumonia", "No Finding"]
rows_of_views = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.booleans()), min_size=1, max_size=80)


def ranked(rows):
    """Queries of (patient, has a mass, has pneumonia); those with neither have no finding."""
    classes = np.array([[mass, pneumonia, not mass and not pneumonia] for _, mass, pneumonia in rows], np.bool_)
    figure = np.full(classes.shape, 0.5)
    patients = np.array([f"p{patient}" for patient, _, _ in rows], np.str_)
    return Ranked(NAMES, classes, patients, figure, figure, figure, figure[:, 0], figure[:, 0])


def told(rows, least):
    one = ranked(rows)
    return near_told(one, tellable_classes(one, least)).classes


@settings(max_examples=300, deadline=None)
@given(rows_of_views, st.integers(2, 4))
def test_what_all_less_the_told_classes_leaves_is_of_none_or_enough(rows, least):
    classes = told(rows, least)
    patients, views = len({patient for patient, _, _ in rows}), len(rows)
    kinds = [{"Mass"}, {"Pneumonia"}, {"No Finding"}, {"No Finding", "Mass"}, {"No Finding", "Pneumonia"}]
    for kind in (each for each in kinds if each <= set(classes)):
        assert all(classes[name].patients >= least for name in kind)
        left_over = patients - sum(classes[name].patients for name in kind)
        assert left_over <= 0 or left_over >= least
        queries = views - sum(classes[name].queries for name in kind)
        assert queries == 0 or queries >= least
        others = {
            patient
            for patient, mass, pneumonia in rows
            if not ({"Mass"} & kind and mass)
            and not ({"Pneumonia"} & kind and pneumonia)
            and not ("No Finding" in kind and not mass and not pneumonia)
        }
        assert not others or len(others) >= least


def test_one_patient_with_the_finding_is_not_told_by_all_the_others():
    rows = [(patient, False, patient == 0) for patient in range(32) for _ in range(2)]
    assert told(rows, 11) == {}
    assert told([(patient, False, patient < 11) for patient, _, _ in rows], 11).keys() == {"Pneumonia", "No Finding"}


def test_a_class_that_all_queries_have_is_told():
    assert told([(patient, False, True) for patient in range(11)], 11).keys() == {"Pneumonia"}


def test_a_patient_counts_for_no_finding_only_without_any():
    rows = [(patient, False, patient % 2 == 0) for patient in range(30)] + [(0, False, False)]
    classes = told(rows, 11)
    assert (classes["No Finding"].queries, classes["No Finding"].patients, classes["Pneumonia"].patients) == (16, 15, 15)
