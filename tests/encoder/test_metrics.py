import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from silo_app.encoder.metrics import auc, average_precision, balanced_accuracy, findings_figures, patient_weights

cases = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=30)


def arrays(rows):
    truth, scores, weights = (np.array(part) for part in zip(*rows, strict=True))
    assume(weights[truth].sum() > 0)
    assume(weights[~truth].sum() > 0)
    return truth, scores.astype(np.float32), weights.astype(np.float64)


@settings(max_examples=100, deadline=None)
@given(cases)
def test_figures_equal_scikit_learns_with_ties_and_weights(rows):
    truth, scores, weights = arrays(rows)
    drawn = np.stack([np.ones(len(truth)), weights])
    for row, weight in enumerate(drawn):
        assert auc(truth, scores, drawn)[row] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight))
        assert average_precision(truth, scores, drawn)[row] == pytest.approx(
            average_precision_score(truth, scores, sample_weight=weight)
        )
        assert balanced_accuracy(truth, scores, drawn)[row] == pytest.approx(
            balanced_accuracy_score(truth, scores > 0, sample_weight=weight)
        )


def test_a_class_that_a_draw_misses_makes_its_figure_undefined():
    truth, scores = np.array([True, False]), np.array([1, 0], np.float32)
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    for figure in (auc, balanced_accuracy):
        assert np.isnan(figure(truth, scores, weights)).tolist() == [False, True, True]


def test_a_patients_views_are_drawn_together():
    patients = np.array(["a", "b", "a", "c"])
    weights = patient_weights(patients, 50, seed=0)
    assert weights.shape == (51, 4)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 2]).all()
    assert ((weights[1:, 0] + weights[1:, 1] + weights[1:, 3]) == 3).all()
    assert len(np.unique(weights[1:], axis=0)) > 3


def test_many_views_get_fewer_draws_rather_than_all_memory(monkeypatch):
    monkeypatch.setattr("silo_app.encoder.metrics._MOST_WEIGHTS", 100)
    assert patient_weights(np.arange(20).astype(str), 500, seed=0).shape == (6, 20)


def figures(targets, known, scores, draws=0):
    patients = np.array([f"p{n}" for n in range(len(scores))])
    arrays = (np.array(scores, np.float32)[:, None], np.array(targets, np.float32)[:, None], np.array(known)[:, None])
    return findings_figures(["Mass"], *arrays, patients, draws=draws)


def test_unknown_views_count_for_nothing():
    known = [True, True, True, False]
    result = figures([1, 0, 0, 0], known, [2, -1, -2, 9])["Mass"]
    assert (result.present, result.absent) == (1, 2)
    assert result.auc.value == 1
    assert result.balanced_accuracy.value == 1
    assert result.auc.low is None


@pytest.mark.parametrize("targets", [[1, 1, 1], [0, 0, 0]])
def test_a_finding_without_both_classes_is_left_out_and_not_invented(targets):
    assert figures(targets, [True] * 3, [1, 2, 3]) == {}


def test_the_interval_holds_the_value_and_narrows_with_more_patients():
    rng = np.random.default_rng(0)
    widths = []
    for count in (40, 400):
        truth = np.arange(count) % 2
        one = figures(truth, [True] * count, rng.normal(truth, 1), draws=300)["Mass"].auc
        assert one.low < one.value < one.high
        widths.append(one.high - one.low)
    assert widths[1] < widths[0] / 2
