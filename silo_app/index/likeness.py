"""Estimate from a gallery itself how near to a query a case is likely of the same patient (`policy.likeness`).

A chest radiograph is biometric: two images of one patient are nearer to each other than two of strangers. How much nearer
depends on the encoder and on the hospital, so every generation of an index brings its own estimate: of pairs of images from
different cases of one patient, how many views drawn at random are as near.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Embedding
from silo_app.index.gallery import SCORE_DIGITS, GalleryIndex
from silo_app.policy.likeness import PERCENTS, Likeness

__all__ = ["CROWD", "Bound", "Sense", "estimate", "sense_of"]

MIN_PATIENTS = 20
"""With fewer patients who have several cases nothing is said of them, and the conservative default holds."""
CROWD = 128
"""About so many of the nearest views are kept back, and no more: who is as near as that many strangers is hidden among
them."""
_COHORT = 1024
_MOST_COHORT = 16_384
"""Views that every query is compared with: 16 MB, and 2 ms."""
_FEWEST = 8
"""Of the cohort: of fewer one could not say where a part of the gallery as small as that begins."""
_VIEWS = 2000
_PARTNERS = 32
_PAIRS_OF_A_PATIENT = 10
_PATIENTS = 5000
_AT_ONCE = 4096
"""Pairs that are compared with the cohort at once: 16 MB."""
_DIGITS = 6
_ROUNDED = 2 * 10.0**-SCORE_DIGITS
"""A case's own score, rounded, must not lie below what the same view says here."""


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

        That is the similarity which the estimate's share of the views drawn at random reaches, or about `CROWD` of all views
        if they are fewer. Within a generation no case that is kept back has a say in it, as it would if the nearest that the
        catalogue holds were counted: then without one of them the next would be kept back.
        """
        if self.known is None:
            return self._bound_for(query)
        if (key := query.tobytes()) not in self.known:
            self.known[key] = self._bound_for(query)
        return self.known[key]

    def _bound_for(self, query: Embedding) -> Bound:
        usual = self.cohort @ query  # (n,)
        if not (count := len(usual)):
            return Bound(-1.0, 0.0)
        crowd = max(_FEWEST, int(CROWD / self.views * count))
        rank = max(1, min(crowd, int(self.likeness.share * count)))
        limit = float(np.partition(usual, count - rank)[count - rank]) - _ROUNDED
        return Bound(limit, rank / count * self.views)

    @property
    def nearest(self) -> int:
        """How many of all views are kept back of any query, for those who rank them all by themselves."""
        return max(1, min(CROWD, int(self.likeness.share * self.views)))


def sense_of(index: GalleryIndex, likeness: Likeness | None) -> Sense:
    """Return the sense of a gallery; one that was published without an estimate gets one that knows no patients."""
    random = np.random.default_rng(0)
    fine = _FEWEST * index.views // CROWD  # so many that a crowd has its fewest among them
    cohort = index.vectors(_some(random, index.views, min(_MOST_COHORT, max(_COHORT, fine))))
    if likeness is None:
        rows = _some(random, index.views, _VIEWS)
        cases = [index.case_of(int(row)) for row in rows]
        likeness = estimate(index.vectors(rows), cases, cases)
    return Sense(likeness, cohort, index.views)


def estimate(vectors: NDArray[np.float32], cases: Sequence[str], patients: Sequence[str]) -> Likeness:
    """Estimate from unit vectors (n, D), each with its case and its patient; reproducible."""
    random = np.random.default_rng(0)
    owner = np.unique(np.array(patients, str), return_inverse=True)[1] if len(vectors) else np.empty(0, np.int64)
    cohort = _some(random, len(vectors), _COHORT)
    similar = _of_strangers(random, vectors, owner)
    pairs = np.array(list(_same(random, owner, np.array(cases, str))), np.int64).reshape(-1, 3)
    of = len(np.unique(pairs[:, 2]))
    evidence = None
    if of >= MIN_PATIENTS and len(similar):
        evidence = _evidence(_nearer(vectors, owner, cohort, pairs), pairs[:, 2])
    return Likeness(patients=of, evidence=evidence, similar=_curve(similar))


def _of_strangers(
    random: np.random.Generator, vectors: NDArray[np.float32], owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the similarity of random pairs of different patients."""
    similar = []
    for row in _some(random, len(vectors), _VIEWS):
        partners = random.integers(0, len(vectors), _PARTNERS)
        partners = partners[owner[partners] != owner[row]]
        similar.append(vectors[partners] @ vectors[row])
    return np.concatenate(similar).astype(np.float64) if similar else np.empty(0)


def _nearer(
    vectors: NDArray[np.float32], owner: NDArray[np.int64], cohort: NDArray[np.int64], pairs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return of each pair (n, 3) the share of other patients' views in the cohort that are as similar to its first view."""
    shares = []
    for start in range(0, len(pairs), _AT_ONCE):
        left, right, of = pairs[start : start + _AT_ONCE].T
        strangers = owner[cohort][None, :] != of[:, None]  # (n, cohort)
        similarity = np.einsum("nd,nd->n", vectors[left], vectors[right])
        near = (vectors[left] @ vectors[cohort].T >= similarity[:, None]) & strangers
        shares.append(near.sum(axis=1) / np.maximum(strangers.sum(axis=1), 1))
    return np.concatenate(shares)


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


def _evidence(shares: NDArray[np.float64], of: NDArray[np.int64]) -> float:
    """Return the share up to which views are denser of the same patient than elsewhere (where Youden's J is greatest).

    Of strangers, as many are within a share of a gallery as it says. Beyond it, to be near is no evidence for a patient.
    """
    counts = np.bincount(of)
    weights = 1.0 / counts[of]  # every patient counts alike
    order = np.argsort(shares, kind="stable")
    within = np.cumsum(weights[order]) / weights.sum()  # of same-patient pairs, up to each share
    return round(float(shares[order][int(np.argmax(within - shares[order]))]), _DIGITS)


def _curve(values: NDArray[np.float64]) -> tuple[float, ...]:
    if not len(values):  # one patient, or none: nobody is a stranger, and everything may be the same patient
        return (-1.0,) * len(PERCENTS)
    return tuple(round(float(value), _DIGITS) for value in np.percentile(values, PERCENTS))


def _some(random: np.random.Generator, count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` of the numbers below `count`, in ascending order."""
    return np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))
