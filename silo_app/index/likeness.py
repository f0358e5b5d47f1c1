"""Estimate from a gallery itself from when on a similar case is likely of the same patient (`policy.likeness`).

A chest radiograph is biometric: two images of one patient are more alike than two of strangers. How much more depends on
the encoder and on the hospital, so every generation of an index brings its own estimate: pairs of images from different
cases of one patient against pairs of different patients, drawn at random.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Embedding
from silo_app.index.gallery import GalleryIndex
from silo_app.policy.likeness import PERCENTS, Likeness

__all__ = ["CROWD", "Bound", "Sense", "estimate", "sense_of"]

MIN_PATIENTS = 20
"""With fewer patients who have several cases nothing is said of them, and the conservative default holds."""
CROWD = 64
"""To a query that is like very many, about so many cases stand out and no more: whoever is as like to that many strangers
is hidden among them."""
_COHORT = 1024
_FEWEST = 8
"""Of the cohort: of fewer one could not say where a part of the gallery as small as that begins."""
_VIEWS = 2000
_PARTNERS = 32
_PAIRS_OF_A_PATIENT = 10
_PATIENTS = 5000
_SMALLEST_SPREAD = 1e-6
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Bound:
    """What is kept back of one query's neighbors."""

    limit: float
    """The similarity from which on a case may be of the query's own patient."""
    alike: float
    """How many cases of the gallery are expected to be as similar."""


@dataclass(frozen=True, slots=True)
class Sense:
    """What an open gallery needs to judge a hit: the estimate, and views drawn at random to compare a query with."""

    likeness: Likeness
    cohort: NDArray[np.float32]
    """float32 (n, D)."""
    views: int
    """Of the gallery."""
    known: dict[bytes, Bound] | None = field(default=None, compare=False)
    """Bounds of queries that were judged before, by their bytes; None remembers none."""

    def remembering(self) -> "Sense":
        """Return one that judges each query once: for those that came together."""
        return replace(self, known={})

    def bound_for(self, query: Embedding) -> Bound:
        """Return from where on neighbors of a query, float32 (D,), are kept back.

        That is the similarity that stands out from the cohort's by the estimate's limit; or, where more than `CROWD` of all
        cases would, the one that as many of the cohort reach. Within a generation no case that is kept back has a say in it,
        as it would if the nearest `CROWD` that the catalogue holds were counted: then without one of them the next would be
        kept back.
        """
        if self.known is None:
            return self._bound_for(query)
        if (key := query.tobytes()) not in self.known:
            self.known[key] = self._bound_for(query)
        return self.known[key]

    def _bound_for(self, query: Embedding) -> Bound:
        usual = (self.cohort @ query).astype(np.float64)  # (n,)
        count = len(usual)
        mean = float(usual.sum()) / count
        spread = usual - mean
        deviation = math.sqrt(float(spread @ spread) / count)  # every query pays for this: half the cost of `usual.std()`
        limit = mean + self.likeness.limit * max(deviation, _SMALLEST_SPREAD)
        alike = int(np.count_nonzero(usual >= limit))
        if alike > (crowd := max(_FEWEST, int(CROWD / self.views * count))):
            limit, alike = float(np.partition(usual, count - crowd)[count - crowd]), crowd
        return Bound(limit, alike / count * self.views)


def sense_of(index: GalleryIndex, likeness: Likeness | None) -> Sense:
    """Return the sense of a gallery; one that was published without an estimate gets one that knows no patients."""
    random = np.random.default_rng(0)
    cohort = index.vectors(_some(random, index.views, _COHORT))
    if likeness is None:
        rows = _some(random, index.views, _VIEWS)
        cases = [index.case_of(int(row)) for row in rows]
        likeness = estimate(index.vectors(rows), cases, cases)
    return Sense(likeness, cohort, index.views)


def estimate(vectors: NDArray[np.float32], cases: Sequence[str], patients: Sequence[str]) -> Likeness:
    """Estimate from unit vectors (n, D), each with its case and its patient; reproducible."""
    random = np.random.default_rng(0)
    owner = np.unique(np.array(patients, str), return_inverse=True)[1] if len(vectors) else np.empty(0, np.int64)
    cohort = vectors[_some(random, len(vectors), _COHORT)]
    similar, standing = _of_strangers(random, vectors, owner, cohort)
    pairs = list(_same(random, owner, np.array(cases, str)))
    evidence = None
    if len({patient for _, _, patient in pairs}) >= MIN_PATIENTS and len(standing):
        left, right, of = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
        scores = np.einsum("nd,nd->n", vectors[left], vectors[right])
        evidence = _evidence(_standing(vectors[left], cohort, scores), of, standing)
    return Likeness(
        patients=len({patient for _, _, patient in pairs}),
        evidence=evidence,
        standing=_curve(standing),
        similar=_curve(similar),
    )


def _of_strangers(
    random: np.random.Generator, vectors: NDArray[np.float32], owner: NDArray[np.int64], cohort: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return similarity and standing of random pairs of different patients."""
    rows = _some(random, len(vectors), _VIEWS)
    similar, standing = [], []
    for row in rows:
        partners = random.integers(0, len(vectors), _PARTNERS)
        partners = partners[owner[partners] != owner[row]]
        scores = vectors[partners] @ vectors[row]
        similar.append(scores)
        standing.append(_standing(vectors[row][None, :], cohort, scores))
    return _flat(similar), _flat(standing)


def _same(random: np.random.Generator, owner: NDArray[np.int64], cases: NDArray[np.str_]) -> Iterator[tuple[int, int, int]]:
    """Yield pairs of rows of one patient in different cases, and the patient; few of each, so that none counts most."""
    order = np.argsort(owner, kind="stable")
    groups = [rows for rows in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1) if len(rows) > 1]
    for group in _chosen(random, groups):
        left, right = (random.choice(group, 4 * _PAIRS_OF_A_PATIENT) for _ in range(2))
        found = {(int(a), int(b)) for a, b in zip(left, right, strict=True) if cases[a] != cases[b]}
        for a, b in sorted(found)[:_PAIRS_OF_A_PATIENT]:
            yield a, b, int(owner[a])


def _chosen(random: np.random.Generator, groups: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return [groups[int(i)] for i in _some(random, len(groups), _PATIENTS)]


def _evidence(same: NDArray[np.float64], of: NDArray[np.int64], strangers: NDArray[np.float64]) -> float:
    """Return the standing at which both kinds of pairs are equally dense (where Youden's J is greatest).

    Below it, a hit is no evidence for its patient. Of equally good standings the lowest is taken: between the last
    stranger and the first pair of one patient, that is the stranger's.
    """
    counts = np.bincount(of)
    weights = 1.0 / counts[of]  # every patient counts alike
    order = np.argsort(same)
    above_same = np.cumsum((weights[order] / weights.sum())[::-1])[::-1]  # share of same-patient pairs at or above
    ranked = np.sort(strangers)
    above_strangers = 1.0 - np.searchsorted(ranked, same[order], side="left") / len(ranked)
    best = float(same[order][int(np.argmax(above_same - above_strangers))])
    lower = int(np.searchsorted(ranked, best, side="left")) - 1
    return round(float(ranked[max(lower, 0)]), _DIGITS)


def _standing(queries: NDArray[np.float32], cohort: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the standing of scores (n,) of queries (n, D) or (1, D)."""
    usual = (queries @ cohort.T).astype(np.float64)  # (n, cohort)
    spread = np.maximum(usual.std(axis=1), _SMALLEST_SPREAD)
    return np.asarray((scores.astype(np.float64) - usual.mean(axis=1)) / spread, np.float64)


def _curve(values: NDArray[np.float64]) -> tuple[float, ...]:
    if not len(values):  # one patient, or none: nobody is a stranger, and everything may be the same patient
        return (-1.0,) * len(PERCENTS)
    return tuple(round(float(value), _DIGITS) for value in np.percentile(values, PERCENTS))


def _flat(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


def _some(random: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` of the numbers below `count`, in ascending order."""
    return np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))
