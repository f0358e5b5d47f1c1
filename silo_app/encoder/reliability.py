"""How often a finding is there where the encoder says so: a reliability diagram that may leave a silo; no torch."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.metrics import CALIBRATION_BINS

__all__ = ["ReliabilityBin", "reliability"]


@dataclass(frozen=True)
class ReliabilityBin:
    """Views whose predicted probability lies in [start, stop) tenths."""

    start: int
    stop: int
    views: int
    present: int
    """Views on which the finding is present."""
    predicted: float
    """The mean of the predicted probabilities."""


def reliability(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], patients: NDArray[np.str_], least: int
) -> list[ReliabilityBin]:
    """Return bins from low to high, each of at least `least` patients with the finding and as many without.

    All arrays are (N,). Neighbouring tenths are joined until they hold enough; what is left over joins the last. Nothing is
    returned if there are fewer patients on a side at all.
    """
    tenth = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    edges = [0]
    for stop in range(1, CALIBRATION_BINS + 1):
        if _enough(truth, patients, (tenth >= edges[-1]) & (tenth < stop), least):
            edges.append(stop)
    if len(edges) == 1:
        return []
    edges[-1] = CALIBRATION_BINS
    result = []
    for start, stop in itertools.pairwise(edges):
        rows = (tenth >= start) & (tenth < stop)
        present = int(truth[rows].sum())
        result.append(ReliabilityBin(start, stop, int(rows.sum()), present, float(probabilities[rows].mean())))
    return result


def _enough(truth: NDArray[np.bool_], patients: NDArray[np.str_], rows: NDArray[np.bool_], least: int) -> bool:
    return all(len(np.unique(patients[rows & side])) >= least for side in (truth, ~truth))
