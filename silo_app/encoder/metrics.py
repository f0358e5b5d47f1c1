"""Figures about findings' scores: AUC, average precision, balanced accuracy, with intervals by patient; no torch.

Every figure takes weights (R, N), one row for each bootstrap draw, so that an interval costs one vectorised call. A figure
that is not defined (a class has no view) is NaN inside and None outside: it is left out, never invented.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SPECIFICITY",
    "FindingFigures",
    "Interval",
    "auc",
    "average_precision",
    "balanced_accuracy",
    "calibration_error",
    "findings_figures",
    "interval",
    "patient_weights",
    "probabilities",
    "sensitivity_at_specificity",
]

Figure = Callable[[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float64]], NDArray[np.float64]]
"""(truth (N,), scores (N,), weights (R, N)) -> values (R,)."""

SPECIFICITY = 0.9
"""At which sensitivity is told; fixed, so that nobody can walk along a silo's ROC curve view by view."""
CALIBRATION_BINS = 10
_COVERAGE = 0.95
_ROUNDING = 1e-9
_MOST_WEIGHTS = 20_000_000
"""Fewer draws are made for more views, so that a bootstrap stays within some hundred megabytes."""


@dataclass(frozen=True)
class Interval:
    """A figure, and the 95 % percentile interval of its bootstrap over patients (None where it was not drawn)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class FindingFigures:
    """One finding on held-out views: how many are present and absent, and how well scores tell them apart."""

    present: int
    absent: int
    auc: Interval
    average_precision: Interval
    balanced_accuracy: Interval
    sensitivity: Interval
    """At a specificity of `SPECIFICITY`, the threshold chosen on these same views."""
    calibration_error: Interval
    """Between predicted probability and how often the finding is there (ECE, ten bins); 0 is best."""


def auc(truth: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the ROC curve: the chance that a present view scores above an absent one; ties count half."""
    order, first, last = _ranked(scores)
    present = np.where(truth[order], weights[:, order], 0)  # (R, N) from the lowest score to the highest
    absent = np.where(truth[order], 0, weights[:, order])
    below = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(absent, axis=1)], axis=1)  # (R, N + 1)
    beaten = (below[:, first] + below[:, last]) / 2  # (R, N)
    return _ratio((present * beaten).sum(axis=1), present.sum(axis=1) * absent.sum(axis=1))


def average_precision(
    truth: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean, over present views, of the precision among the views that score at least as high."""
    order, first, _ = _ranked(scores)
    drawn = weights[:, order]
    present = np.where(truth[order], drawn, 0)
    all_above = np.cumsum(drawn[:, ::-1], axis=1)[:, ::-1][:, first]  # (R, N), ties included
    present_above = np.cumsum(present[:, ::-1], axis=1)[:, ::-1][:, first]
    return _ratio((present * _ratio(present_above, all_above, empty=0.0)).sum(axis=1), present.sum(axis=1))


def balanced_accuracy(
    truth: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean of sensitivity and specificity when a logit above 0 is taken as present."""
    called = scores > 0
    sensitivity = _ratio(weights[:, truth & called].sum(axis=1), weights[:, truth].sum(axis=1))
    specificity = _ratio(weights[:, ~truth & ~called].sum(axis=1), weights[:, ~truth].sum(axis=1))
    return (sensitivity + specificity) / 2


def sensitivity_at_specificity(
    truth: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of present views above the lowest threshold that keeps `SPECIFICITY` of the absent ones below.

    A view that scores exactly the threshold is taken as absent, so that ties never flatter.
    """
    order, _, last = _ranked(scores)
    absent = np.cumsum(np.where(truth[order], 0, weights[:, order]), axis=1)[:, last - 1]  # (R, N): at most each score
    present = np.cumsum(np.where(truth[order], weights[:, order], 0), axis=1)[:, last - 1]
    enough = absent >= SPECIFICITY * absent[:, -1:] - _ROUNDING
    place = enough.argmax(axis=1)[:, None]  # the first place that keeps enough
    above = present[:, -1] - np.take_along_axis(present, place, axis=1)[:, 0]
    sensitivity = _ratio(above, present[:, -1])
    return np.where(absent[:, -1] > 0, sensitivity, math.nan)


def calibration_error(
    truth: NDArray[np.bool_], scores: NDArray[np.float32], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the expected calibration error (Guo et al., ICML 2017): |probability - share present|, by tenths, weighted."""
    predicted = probabilities(scores)
    place = np.minimum((predicted * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gap = (predicted - truth)[:, None] * (place[:, None] == np.arange(CALIBRATION_BINS))  # (N, bins)
    return _ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the predicted probabilities of logits, float64."""
    return np.asarray(1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -50, 50))))


def patient_weights(patients: NDArray[np.str_], draws: int, seed: int) -> NDArray[np.float64]:
    """Return how often each view counts, float64 (1 + draws, N): as it is, then in draws of patients with replacement.

    A patient's views come or stay away together: they are not independent.
    """
    draws = min(draws, _MOST_WEIGHTS // max(len(patients), 1))
    _, row = np.unique(patients, return_inverse=True)
    count = int(row.max()) + 1 if len(row) else 0
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / max(count, 1)), size=draws) if count else np.zeros((draws, 0))
    return np.concatenate([np.ones((1, len(row))), drawn[:, row].astype(np.float64)])


def interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the first value with the percentile interval of the others, (1 + draws,); None if it is not defined."""
    if math.isnan(values[0]):
        return None
    drawn = values[1:][~np.isnan(values[1:])]
    if not len(drawn):
        return Interval(float(values[0]))
    low, high = np.quantile(drawn, [(1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2])
    return Interval(float(values[0]), float(low), float(high))


def findings_figures(
    names: Sequence[str],
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    known: NDArray[np.bool_],
    patients: NDArray[np.str_],
    *,
    draws: int = 0,
    seed: int = 0,
) -> Mapping[str, FindingFigures]:
    """Return the figures of each finding that has present and absent views; the arrays are (N, F), `patients` is (N,)."""
    result = {}
    for column, name in enumerate(names):
        rows = known[:, column]
        truth, column_scores = targets[rows, column] > 0.5, scores[rows, column]
        if not truth.any() or truth.all():
            continue
        weights = patient_weights(patients[rows], draws, seed)
        figures = (interval(figure(truth, column_scores, weights)) or Interval(math.nan) for figure in _FIGURES)
        result[name] = FindingFigures(int(truth.sum()), int((~truth).sum()), *figures)
    return result


_FIGURES: tuple[Figure, ...] = (auc, average_precision, balanced_accuracy, sensitivity_at_specificity, calibration_error)
"""In the order of `FindingFigures`."""


def _ranked(scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the order from low to high, and for each place the first and one past the last place with its score."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    return order, np.searchsorted(ordered, ordered, "left"), np.searchsorted(ordered, ordered, "right")


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64], *, empty: float = math.nan) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.full(above.shape, empty)
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio
