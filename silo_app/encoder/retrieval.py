"""Figures about neighbours: precision among the first k and mean average precision, balanced over classes; no torch.

A class is a finding, or "No Finding". A query is asked once for every class that it has, and a hit is right if it has that
class too. Figures are means over classes of means over queries, so that a common class cannot carry them; chance and
floors stand beside them in every report, because on many chest X-ray sets they are high.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Finding

__all__ = [
    "Neighbourhood",
    "Ranked",
    "balanced_precision",
    "classes_of",
    "neighbourhood",
    "precision_by_class",
    "rank",
]

_CHUNK = 256  # queries ranked at once: 256 x 100,000 similarities are 100 MB


@dataclass(frozen=True)
class Neighbourhood:
    """How well a gallery's order, as seen from held-out queries, follows the classes."""

    queries: int
    precision: float | None
    """Balanced precision among the first `k`."""
    precision_by_class: Mapping[str, float]
    mean_average_precision: float | None
    """Over the whole order, balanced."""
    ndcg: float | None
    """Normalised discounted cumulative gain of the first `k`, balanced."""
    own_silo_share: float | None
    """The share of the first `k` that comes from the query's own silo."""
    own_silo_chance: float | None
    """The same for hits drawn at random."""


def classes_of(
    names: Sequence[str], targets: NDArray[np.float32], known: NDArray[np.bool_]
) -> tuple[list[str], NDArray[np.bool_]]:
    """Return the classes and which view has which, bool (N, C), from labels (N, F).

    "No Finding" is a class of the views of which something is known and nothing is present.
    """
    present = known & (targets > 0.5)
    nothing = known.any(axis=1, keepdims=True) & ~present.any(axis=1, keepdims=True)
    return [*map(str, names), str(Finding.NO_FINDING)], np.concatenate([present, nothing], axis=1)


def balanced_precision(
    queries: Sequence[Collection[str]], hits: Sequence[Sequence[Collection[str]]], k: int
) -> tuple[float | None, Mapping[str, float]]:
    """Return balanced precision at `k` and that of each class, for a search that was really asked (federated or not).

    `queries` holds each query's classes (findings present, or {"No Finding"}; nothing if unknown), `hits` the classes of
    each query's ranked hits. A query with fewer than `k` hits counts the missing ones as wrong.
    """
    names = sorted({name for query in queries for name in query})
    has = np.array([[name in query for name in names] for query in queries], np.bool_).reshape(len(queries), len(names))
    right = np.zeros((len(queries), k, len(names)), np.bool_)
    for row, ranked in enumerate(hits):
        for place, hit in enumerate(ranked[:k]):
            right[row, place] = [name in hit for name in names]
    return precision_by_class(names, has, right)


def precision_by_class(
    names: Sequence[str], queries: NDArray[np.bool_], hits: NDArray[np.bool_]
) -> tuple[float | None, Mapping[str, float]]:
    """Return balanced precision and each class's; `queries` (Q, C) and `hits` (Q, k, C) say who has which class."""
    share = hits.astype(np.float64).mean(axis=1)  # (Q, C)
    by_class = {name: float(share[queries[:, c], c].mean()) for c, name in enumerate(names) if queries[:, c].any()}
    return _mean(by_class), by_class


@dataclass(frozen=True)
class Ranked:
    """What the order of a gallery gave each query, (Q,) or (Q, C); a query may lack a figure (NaN)."""

    names: Sequence[str]
    classes: NDArray[np.bool_]
    """(Q, C): which classes each query has."""
    patients: NDArray[np.str_]
    share: NDArray[np.float64]
    """(Q, C): the share of the first k that has the class."""
    average: NDArray[np.float64]
    """(Q, C): average precision over the whole order."""
    gain: NDArray[np.float64]
    """(Q, C): normalised discounted cumulative gain of the first k (Jarvelin and Kekalainen, 2002), gain 1 for the class."""
    own: NDArray[np.float64]
    chance: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> "Ranked":
        """Return the queries for which `chosen`, bool (Q,), holds."""
        return Ranked(
            self.names,
            self.classes[chosen],
            self.patients[chosen],
            self.share[chosen],
            self.average[chosen],
            self.gain[chosen],
            self.own[chosen],
            self.chance[chosen],
        )

    def neighbourhood(self) -> Neighbourhood:
        """Return the figures over all queries."""
        by_class = _class_means(self.names, self.classes, self.share)
        return Neighbourhood(
            queries=len(self.patients),
            precision=_mean(by_class),
            precision_by_class=by_class,
            mean_average_precision=_mean(_class_means(self.names, self.classes, self.average)),
            ndcg=_mean(_class_means(self.names, self.classes, self.gain)),
            own_silo_share=float(self.own.mean()) if len(self.own) else None,
            own_silo_chance=float(self.chance.mean()) if len(self.chance) else None,
        )


def neighbourhood(
    names: Sequence[str],
    vectors: NDArray[np.float32],
    classes: NDArray[np.bool_],
    patients: NDArray[np.str_],
    silos: NDArray[np.str_],
    queries: NDArray[np.int64],
    *,
    k: int = 10,
    other_silos_only: bool = False,
) -> Neighbourhood:
    """Rank all views for each query row and return the figures; the arguments are those of `rank`."""
    return rank(names, vectors, classes, patients, silos, queries, k=k, other_silos_only=other_silos_only).neighbourhood()


def rank(
    names: Sequence[str],
    vectors: NDArray[np.float32],
    classes: NDArray[np.bool_],
    patients: NDArray[np.str_],
    silos: NDArray[np.str_],
    queries: NDArray[np.int64],
    *,
    k: int = 10,
    other_silos_only: bool = False,
) -> Ranked:
    """Rank all views for each query row.

    `vectors` (N, D) are unit length, `classes` (N, C); `queries` (Q,) are rows. Views of the query's own patient are not
    in its gallery, nor with `other_silos_only` those of its own silo. A patient belongs to one silo.
    """
    owners = np.char.add(np.char.add(silos, "/"), patients)
    first_k = np.zeros((len(queries), k, classes.shape[1]), np.bool_)
    averages, gains = (np.full((len(queries), classes.shape[1]), np.nan) for _ in range(2))
    own, chance = np.zeros(len(queries)), np.zeros(len(queries))
    for rows, places in _chunks(queries):
        allowed = owners[None] != owners[rows][:, None]  # (q, N)
        same_silo = silos[None] == silos[rows][:, None]
        if other_silos_only:
            allowed &= ~same_silo
        similarity = np.where(allowed, vectors[rows] @ vectors.T, -np.inf)
        order = np.argsort(-similarity, axis=1, kind="stable")  # (q, N)
        ranked_allowed = np.take_along_axis(allowed, order, axis=1)
        first_k[places, : min(k, order.shape[1])] = classes[order[:, :k]] & ranked_allowed[:, :k, None]
        own[places] = (np.take_along_axis(same_silo, order, axis=1) & ranked_allowed)[:, :k].sum(axis=1) / k
        chance[places] = (same_silo & allowed).sum(axis=1) / np.maximum(allowed.sum(axis=1), 1)
        for c in range(classes.shape[1]):
            right = classes[order, c] & ranked_allowed
            averages[places, c] = _average_precisions(right)
            gains[places, c] = _gains(right, k)
    share = first_k.astype(np.float64).mean(axis=1)  # (Q, C)
    return Ranked(list(names), classes[queries], patients[queries], share, averages, gains, own, chance)


def _average_precisions(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each ranking's average precision, (q,), of `right` (q, N); NaN where nothing is right."""
    found = np.cumsum(right, axis=1)
    precision = found / np.arange(1, right.shape[1] + 1)
    total = right.sum(axis=1)
    average: NDArray[np.float64] = np.full(len(right), np.nan)
    np.divide((precision * right).sum(axis=1), total, out=average, where=total > 0)
    return average


def _gains(right: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Return each ranking's nDCG of the first k, (q,), of `right` (q, N); NaN where nothing is right."""
    discount = 1 / np.log2(np.arange(2, min(k, right.shape[1]) + 2))  # (k,)
    best = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(right.sum(axis=1), len(discount))]
    gain: NDArray[np.float64] = np.full(len(right), np.nan)
    np.divide(right[:, : len(discount)] @ discount, best, out=gain, where=best > 0)
    return gain


def _class_means(names: Sequence[str], queries: NDArray[np.bool_], values: NDArray[np.float64]) -> dict[str, float]:
    means = {}
    for c, name in enumerate(names):
        defined = values[queries[:, c], c]
        defined = defined[~np.isnan(defined)]
        if len(defined):
            means[name] = float(defined.mean())
    return means


def _mean(by_class: Mapping[str, float]) -> float | None:
    return float(np.mean(list(by_class.values()))) if by_class else None


def _chunks(queries: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], slice]]:
    for start in range(0, len(queries), _CHUNK):
        yield queries[start : start + _CHUNK], slice(start, start + _CHUNK)
