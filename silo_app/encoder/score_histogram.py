"""Scores as counts that may leave a silo, and what several silos' counts together say; no torch.

The grid is a hundred equal bins of predicted probability, part of the program. A silo joins neighbouring bins until each
segment holds enough patients, so no count is of few; a reliability diagram of the same views has edges only where the
segments have some, else one less the other would be of few. Whoever adds several silos' segments does not know where in
its segment a view scored: figures come with the least and the most that they can be.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.metrics import SPECIFICITY

__all__ = ["BINS", "Bounded", "Counted", "Segment", "Side", "bins_of", "pooled_auc", "pooled_sensitivity", "segments"]

BINS = 100
_ROUNDING = 1e-9

Segment = tuple[int, int, int]
"""From this bin, up to but without this bin, so many views."""
Counted = tuple[int, int, int, int]
"""A segment, and how many patients count in it."""
Side = Sequence[Segment]
"""The segments of the views on which a finding is present, or absent; they cover the grid."""


@dataclass(frozen=True)
class Bounded:
    """A figure from segments: with views spread evenly over theirs, and the least and most that it can be."""

    value: float
    least: float
    most: float


def bins_of(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return each probability's bin, (N,), of (N,) in [0, 1]."""
    return np.asarray(np.minimum((probabilities * BINS).astype(np.int64), BINS - 1))


def segments(
    bins: NDArray[np.int64], counted: NDArray[np.bool_], least: int, edges: Sequence[int] = (0, BINS)
) -> list[Counted]:
    """Return counts by segment, each of at least `least` patients; nothing if there are fewer between two `edges`.

    `bins` (N,) are the views' and `counted` (N,) says by which a patient counts: by one each, so that sums over segments
    tell nobody who is in two. The segments cover the whole grid, so that not even the lowest and highest score are told,
    and none lies across one of the edges.
    """
    views, patients = (np.bincount(each, minlength=BINS) for each in (bins, bins[counted]))
    result: list[Counted] = []
    for first, last in itertools.pairwise(edges):
        stops = [first]
        for stop in range(first + 1, last + 1):
            if patients[stops[-1] : stop].sum() >= least:
                stops.append(stop)
        if len(stops) == 1:
            return []
        stops[-1] = last  # what is left over joins the last
        for start, stop in itertools.pairwise(stops):
            result.append((start, stop, int(views[start:stop].sum()), int(patients[start:stop].sum())))
    return result


def pooled_auc(present: Iterable[Side], absent: Iterable[Side]) -> Bounded:
    """Return the AUC over all silos' views together, from each silo's segments."""
    present, absent = list(present), list(absent)
    return Bounded(
        _auc(_summed(present, _evenly), _summed(absent, _evenly), ties=0.5),
        _auc(_summed(present, _lowest), _summed(absent, _highest), ties=0.0),
        _auc(_summed(present, _highest), _summed(absent, _lowest), ties=1.0),
    )


def pooled_sensitivity(present: Iterable[Side], absent: Iterable[Side]) -> Bounded:
    """Return the sensitivity at one threshold for all silos, which keeps `SPECIFICITY` of all absent views below it."""
    present, absent = list(present), list(absent)
    return Bounded(
        _sensitivity(_summed(present, _evenly), _summed(absent, _evenly), ties=0.5),
        _sensitivity(_summed(present, _lowest), _summed(absent, _highest), ties=0.0),
        _sensitivity(_summed(present, _highest), _summed(absent, _lowest), ties=1.0),
    )


def _auc(present: NDArray[np.float64], absent: NDArray[np.float64], *, ties: float) -> float:
    below = np.cumsum(absent) - absent
    return float((present * (below + ties * absent)).sum() / (present.sum() * absent.sum()))


def _sensitivity(present: NDArray[np.float64], absent: NDArray[np.float64], *, ties: float) -> float:
    """Return the share of present views above the threshold; of those in the threshold's own bin, `ties` count."""
    place = int((np.cumsum(absent) >= SPECIFICITY * absent.sum() - _ROUNDING).argmax())
    return float((present[place + 1 :].sum() + ties * present[place]) / present.sum())


def _summed(sides: Iterable[Side], put: Callable[[NDArray[np.float64], Segment], None]) -> NDArray[np.float64]:
    counts: NDArray[np.float64] = np.zeros(BINS)
    for side in sides:
        for segment in side:
            put(counts, segment)
    return counts


def _evenly(counts: NDArray[np.float64], segment: Segment) -> None:
    start, stop, views = segment
    counts[start:stop] += views / (stop - start)


def _lowest(counts: NDArray[np.float64], segment: Segment) -> None:
    counts[segment[0]] += segment[2]


def _highest(counts: NDArray[np.float64], segment: Segment) -> None:
    counts[segment[1] - 1] += segment[2]
