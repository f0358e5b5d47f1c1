import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from silo_app.encoder.metrics import (
    SPECIFICITY,
    auc,
    average_precision,
    balanced_accuracy,
    calibration_error,
    findings_figures,
    patient_weights,
    probabilities,
    sensitivity_at_specificity,
)

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


@settings(max_examples=100, deadline=None)
@given(cases)
def test_sensitivity_is_that_of_the_lowest_threshold_that_keeps_the_specificity(rows):
    truth, scores, weights = arrays(rows)
    kept = [weights[~truth & (scores <= one)].sum() >= SPECIFICITY * weights[~truth].sum() - 1e-9 for one in sorted(scores)]
    threshold = sorted(scores)[kept.index(True)]
    expected = weights[truth & (scores > threshold)].sum() / weights[truth].sum()
    assert sensitivity_at_specificity(truth, scores, weights[None])[0] == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(cases)
def test_calibration_error_is_the_mean_gap_of_tenths(rows):
    truth, scores, weights = arrays(rows)
    predicted, gap = probabilities(scores), 0.0
    for tenth in range(10):
        inside = np.minimum(np.floor(predicted * 10), 9) == tenth
        if (total := weights[inside].sum()) > 0:
            gap += abs((weights * (predicted - truth))[inside].sum() / total) * total / weights.sum()
    assert calibration_error(truth, scores, weights[None])[0] == pytest.approx(gap)


def test_a_calibrated_score_has_no_calibration_error_and_a_sure_wrong_one_all():
    half, sure = np.zeros(2, np.float32), np.array([40, -40], np.float32)
    truth, weights = np.array([True, False]), np.ones((1, 2))
    assert calibration_error(truth, half, weights)[0] == 0
    assert calibration_error(truth, sure, weights)[0] == pytest.approx(0)
    assert calibration_error(~truth, sure, weights)[0] == pytest.approx(1)


def test_a_class_that_a_draw_misses_makes_its_figure_undefined():
    truth, scores = np.array([True, False]), np.array([1, 0], np.float32)
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    for figure in (auc, balanced_accuracy, sensitivity_at_specificity):
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
