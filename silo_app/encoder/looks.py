"""A silo's look taken out of its embeddings, so that detectors, borders and exposure do not choose the neighbors; no torch.

The directions that the findings head reads keep their origin, because the head's threshold lies there in every silo; all
other directions are centered and whitened by what the silo's own training views have in common. Present and absent views
of a finding weigh alike, so that a silo's case mix is not taken for its look. Nothing is shared for it: silos that use the
same encoder meet in the same space. What was measured, and what it does not do: docs/explanation-encoder.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Split, View
from silo_app.encoder.labels import labels_of
from silo_app.encoder.spec import EncoderSpec

__all__ = ["FEWEST", "FindingsHead", "Look", "look_of", "without_look"]

FEWEST = 20
"""A silo with fewer training views has no look that could be told from chance, nor a finding with fewer on either side."""
_EMPHASIS = 9.0
"""What the findings' directions weigh in a similarity, together, against all others together, at least."""
_TINY = 1e-12


@dataclass(frozen=True)
class Look:
    """What is subtracted from an embedding, float64 (D,), and what it is multiplied with then, float64 (D, D)."""

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @classmethod
    def none(cls, dimension: int) -> Self:
        """Return the look that takes nothing away."""
        return cls(np.zeros(dimension), np.eye(dimension))

    @classmethod
    def of_array(cls, array: NDArray[np.float32]) -> Self:
        """Return the look in what `array` gave. Raises `ValueError` if it is none."""
        if array.ndim != 2 or array.shape[0] != array.shape[1] + 1 or not np.isfinite(array).all():
            raise ValueError(f"a look is D + 1 rows of D finite numbers, not {array.shape}")
        exact = array.astype(np.float64)
        return cls(exact[0], exact[1:])

    def array(self) -> NDArray[np.float32]:
        """Return mean and matrix in one array to keep, float32 (D + 1, D)."""
        return np.concatenate([self.mean[None], self.matrix]).astype(np.float32)

    def removed(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), without the look."""
        plain = self.transformed(vectors.astype(np.float64))
        return np.asarray(plain / np.maximum(np.linalg.norm(plain, axis=1, keepdims=True), _TINY), np.float32)

    def transformed(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return vectors, float64 (..., D), centered and stretched; affine, so that means stay means."""
        plain: NDArray[np.float64] = (vectors - self.mean) @ self.matrix
        return plain


@dataclass(frozen=True)
class FindingsHead:
    """What tells a finding from a look: the directions, float32 (F, D), by which an encoder reads its findings."""

    spec: EncoderSpec
    rows: NDArray[np.float32]

    def look(self, views: Sequence[View], vectors: NDArray[np.float32]) -> Look:
        """Return the look of a silo with these views and their unit vectors (N, D); held-out patients have no say."""
        targets, known = labels_of(views, self.spec)
        train = np.array([view.split is Split.TRAIN for view in views], np.bool_)
        return look_of(vectors[train], targets[train], known[train], self.rows)


def look_of(
    vectors: NDArray[np.float32], targets: NDArray[np.float32], known: NDArray[np.bool_], head: NDArray[np.float32]
) -> Look:
    """Return the look of a silo's training views: unit vectors (N, D) with labels (N, F); `head` (F, D) reads findings.

    Findings of which the silo knows too little do not count; without any, all of the head's directions keep their origin
    and views weigh alike. The whitening is drawn towards a multiple of the identity by D / (D + N), because a small silo
    cannot know D x D numbers.
    """
    count, side = vectors.shape
    if count < FEWEST:
        return Look.none(side)
    usable = _usable(targets, known)
    weight = _weights(targets[:, usable], known[:, usable])
    axes = _span(head[usable] if usable else head)  # (K, D)
    rest = np.eye(side) - axes.T @ axes
    mean = weight @ vectors.astype(np.float64) @ rest
    apart = vectors.astype(np.float64) - mean
    second = (apart * weight[:, None]).T @ apart  # (D, D)
    found = max(float(np.trace(axes @ second @ axes.T)), _TINY)
    return Look(mean, _whitening(second, axes, count) + np.sqrt(_EMPHASIS * side / found) * axes.T @ axes)


def without_look(
    vectors: NDArray[np.float32],
    training: NDArray[np.bool_],
    targets: NDArray[np.float32],
    known: NDArray[np.bool_],
    head: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return embeddings, float32 (N, D), as the silo would index them: less the look of those that `training` (N,) names."""
    return look_of(vectors[training], targets[training], known[training], head).removed(vectors)


def _usable(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> list[int]:
    present, absent = known & (targets > 0.5), known & (targets <= 0.5)
    enough = (present.sum(axis=0) >= FEWEST) & (absent.sum(axis=0) >= FEWEST)
    return [int(column) for column in np.flatnonzero(enough)]


def _weights(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each view's weight, (N,), sum 1: of every finding, present and absent views weigh alike."""
    if not targets.shape[1]:
        return np.full(len(targets), 1 / max(len(targets), 1))
    weight = np.zeros(len(targets))
    for column in range(targets.shape[1]):
        for rows in (known[:, column] & (targets[:, column] > 0.5), known[:, column] & (targets[:, column] <= 0.5)):
            weight[rows] += 1 / rows.sum()
    return np.asarray(weight / weight.sum(), np.float64)


def _span(rows: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return an orthonormal basis, (K, D), of what the rows (F, D) span."""
    _, values, axes = np.linalg.svd(np.asarray(rows, np.float64), full_matrices=False)
    return np.asarray(axes[values > 1e-6 * max(values.max(initial=0.0), _TINY)], np.float64)


def _whitening(second: NDArray[np.float64], axes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return what whitens the directions outside of the findings' `axes` (K, D), (D, D), of the second moment (D, D).

    It is found in a basis of those directions alone: where embeddings do not fill their space, many directions have no
    variance, and none of them could be told from the findings' own by it.
    """
    side = len(second)
    others = np.linalg.svd(axes, full_matrices=True)[2][len(axes) :]  # (D - K, D)
    values, turned = np.linalg.eigh(others @ second @ others.T)
    values = np.maximum(values, 0)
    if not len(values) or values.mean() < _TINY:
        return np.zeros((side, side))
    shrink = side / (side + count)
    drawn = (1 - shrink) * values + shrink * values.mean()
    return np.asarray(others.T @ (turned / np.sqrt(drawn)) @ turned.T @ others, np.float64)
