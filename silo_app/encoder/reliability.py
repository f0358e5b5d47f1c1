"""How often a finding is there where the encoder says so: a reliability diagram that may leave a silo; no torch."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.metrics import CALIBRATION_BINS
from silo_app.encoder.score_histogram import BINS, bins_of

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
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], counted: NDArray[np.bool_], least: int
) -> list[ReliabilityBin]:
    """Return bins from low to high, each of at least `least` patients with the finding and as many without.

    All arrays are (N,); `counted` says by which view a patient counts. Neighbouring tenths are joined until they hold
    enough; what is left over joins the last. Nothing is returned if there are fewer patients on a side at all.
    """
    tenth = bins_of(probabilities) * CALIBRATION_BINS // BINS  # of the same grid as the counts of scores beside it
    edges = [0]
    for stop in range(1, CALIBRATION_BINS + 1):
        rows = counted & (tenth >= edges[-1]) & (tenth < stop)
        if min((rows & truth).sum(), (rows & ~truth).sum()) >= least:
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
