"""A silo's look taken out of its embeddings, so that detectors, borders and exposure do not choose the neighbors; no torch.

What the findings head reads stays, as an order: how far an image lies on its side of the head's threshold, among the silo's
own training views on that side, from the least sure to the surest. Scores of one hospital's images may all lie further from
the threshold than another's, and the sure would meet the sure. All other directions are centered and whitened by what
the silo's own training views on that side of the threshold have in common, and what is far out there is drawn in. Nothing
is shared for it: silos that use the same encoder meet in the same space. What was measured, and what it does not do:
docs/explanation-encoder.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from silo_app.cases import Split, View
from silo_app.encoder.labels import labels_of
from silo_app.encoder.spec import EncoderSpec

__all__ = ["FEWEST", "METHOD", "FindingsHead", "Look", "look_of", "without_look"]

METHOD = "by-side/3"
"""How looks are removed has a name too, which is part of the version of every encoder that they are removed for."""
FEWEST = 20
"""What fewer training views have in common, or fewer on either side of a finding, could not be told from chance."""
_EMPHASIS = 36.0
"""What the findings' directions weigh in a similarity, together, against all others together, at most."""
_DRAWN_IN = 0.5
"""The power of its length by which what an image has in the other directions is shortened. What lies far out is hardly
anybody's neighbor; where a silo's images differ much, many do, and the other silos' queries found the more of their own."""
_SUREST = 0.5
"""Where the surest of a silo that has too few views to say are taken to lie, in unit vectors."""
_LEAST = 0.2
"""Where the least sure lie between the threshold and the surest: near it, and on their own side."""
_TRUST = 4.0
"""A covariance of N views is drawn towards a multiple of the identity by D / (D + 4 N)."""
_OF_A_KIND = 64
"""A kind with fewer training views is whitened by all of them: its own few would say more of chance than of a look."""
_STEPS = 65
"""The sizes that are kept of each finding and side, from the smallest to the largest of the training views."""
_TINY = 1e-12
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """How one silo's embeddings, (N, D), lose its look; F findings are read. An image is of the kind 1 if any is present."""

    axes: Array
    """(F, D): the unit directions along which the head reads the findings."""
    frame: Array
    """(F, D): where their levels are put, with their weights: orthogonal to all that is whitened."""
    sizes: Array
    """(F, 2, S): how far training views lie from the threshold where the finding is absent, and present; ascending."""
    means: Array
    """(2, D): of both kinds, in the other directions."""
    matrices: Array
    """(2, D, D): what whitens both kinds there, and leaves nothing of the findings' directions."""

    @classmethod
    def by_head(cls, head: NDArray[np.float32]) -> Self:
        """Return the look of a silo of which too little is known: what the head (F, D) reads is told apart, and no more.

        Levels rise evenly with the distance from the threshold; other directions are as wide as those of unit vectors that
        lie everywhere alike. So its vectors meet those of silos whose looks were learned.
        """
        axes = _unit(head)
        span, others = _parted(axes)
        side = head.shape[1]
        frame = _frame(axes, span, np.eye(len(axes)))
        sizes = np.tile(np.linspace(0, _SUREST, _STEPS), (len(axes), 2, 1))
        return cls(axes, frame, sizes, np.zeros((2, side)), np.stack([np.sqrt(side) * others.T @ others] * 2))

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Return the look that `content` wrote. Raises `ValueError` if it is none."""
        try:
            found = load_tensors(content)
        except SafetensorError:
            raise ValueError("it cannot be read") from None
        if found.keys() != {field.name for field in fields(cls)}:
            raise ValueError("it has other parts than a look")
        look = cls(**{name: array.astype(np.float64) for name, array in found.items()})
        count, side = look.axes.shape if look.axes.ndim == 2 else (0, 0)
        shapes = [look.frame.shape, look.sizes.shape, look.means.shape, look.matrices.shape]
        if not side or shapes != [(count, side), (count, 2, _STEPS), (2, side), (2, side, side)]:
            raise ValueError("its parts do not fit each other")
        if not all(np.isfinite(array).all() for array in found.values()):
            raise ValueError("it has numbers that are not finite")
        return look

    def content(self) -> bytes:
        """Return all of it to keep, as safetensors in float32."""
        return save_tensors({field.name: getattr(self, field.name).astype(np.float32) for field in fields(self)})

    @property
    def dimension(self) -> int:
        """D of the embeddings that it is of."""
        return int(self.means.shape[1])

    def removed(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), without the look."""
        exact = vectors.astype(np.float64)
        along = exact @ self.axes.T  # (N, F)
        plain = self._levels(along) @ self.frame
        kinds = _kinds(along)
        for kind in (0, 1):
            rest = self._rest(exact[kinds == kind], kind)
            plain[kinds == kind] += rest * _drawn_in(rest)
        return np.asarray(plain / np.maximum(np.linalg.norm(plain, axis=1, keepdims=True), _TINY), np.float32)

    def transformed(self, places: Array) -> Array:
        """Return the parts of one image, (..., D), as it loses its look: their mean is what becomes of their mean.

        What happens to an image depends on where it lies; to its parts happens what happens to it, which is affine.
        """
        whole = places.reshape(-1, places.shape[-1]).mean(axis=0)
        along = whole @ self.axes.T  # (F,)
        gains = self._levels(along[None])[0] / np.where(np.abs(along) < _TINY, _TINY, along)
        kind = int(_kinds(along))
        plain: Array = (places @ self.axes.T * gains) @ self.frame
        plain += self._rest(places, kind) * _drawn_in(self._rest(whole, kind))
        return plain

    def _rest(self, places: Array, kind: int) -> Array:
        """Return what images of a kind, or their parts, (..., D), have in the other directions, whitened."""
        return np.asarray((places - self.means[kind]) @ self.matrices[kind], np.float64)

    def _levels(self, along: Array) -> Array:
        """Return how sure the findings are, (N, F), from -1, surely absent, to 1; of what lies on the threshold, 0."""
        levels = np.zeros(along.shape)
        shares = np.linspace(_LEAST, 1, _STEPS)
        for finding, sides in enumerate(self.sizes):
            for side, sign in enumerate((-1, 1)):
                rows = np.sign(along[:, finding]) == sign
                levels[rows, finding] = sign * np.interp(np.abs(along[rows, finding]), sides[side], shares)
        return levels


@dataclass(frozen=True, slots=True)
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

    Findings of which the silo knows too little do not count; without any, all count that the head reads. With fewer than
    `FEWEST` views it is the head's alone (`Look.by_head`).
    """
    if len(vectors) < FEWEST:
        return Look.by_head(head)
    chosen = _usable(targets, known) or list(range(len(head)))
    axes = _unit(head[chosen])  # (F, D)
    exact = vectors.astype(np.float64)
    along = exact @ axes.T  # (N, F)
    span, others = _parted(axes)
    kinds = _kinds(along)
    found = [
        _whitening(exact[kinds == kind] if (kinds == kind).sum() >= _OF_A_KIND else exact, others) for kind in (False, True)
    ]
    return Look(
        axes,
        _frame(axes, span, along),
        np.stack(
            [_sizes(column, *labels) for column, *labels in zip(along.T, targets.T[chosen], known.T[chosen], strict=True)]
        ),
        np.stack([mean for mean, _ in found]),
        np.stack([matrix for _, matrix in found]),
    )


def without_look(
    vectors: NDArray[np.float32],
    training: NDArray[np.bool_],
    targets: NDArray[np.float32],
    known: NDArray[np.bool_],
    head: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return embeddings, float32 (N, D), as the silo would index them: less the look of those that `training` (N,) names."""
    return look_of(vectors[training], targets[training], known[training], head).removed(vectors)


def _kinds(along: Array) -> NDArray[np.bool_]:
    """Return of which kind images are, (...,), by how far they lie along the findings, (..., F): whether any is present."""
    return np.asarray((along > 0).any(axis=-1), np.bool_)


def _drawn_in(rest: Array) -> Array:
    """Return what the other directions of images, (..., D), are multiplied by, (..., 1); lengths are sqrt(D) as a rule."""
    lengths = np.linalg.norm(rest, axis=-1, keepdims=True) / np.sqrt(rest.shape[-1])
    return np.asarray(np.maximum(lengths, _TINY) ** -_DRAWN_IN, np.float64)


def _usable(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> list[int]:
    present, absent = known & (targets > 0.5), known & (targets <= 0.5)
    enough = (present.sum(axis=0) >= FEWEST) & (absent.sum(axis=0) >= FEWEST)
    return [int(column) for column in np.flatnonzero(enough)]


def _unit(rows: NDArray[np.float32]) -> Array:
    exact = rows.astype(np.float64)
    return np.asarray(exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), _TINY), np.float64)


def _parted(axes: Array) -> tuple[Array, Array]:
    """Return orthonormal bases, (K, D) and (D - K, D), of what the axes (F, D) span and of all other directions."""
    _, values, basis = np.linalg.svd(axes, full_matrices=True)
    rank = int((values > 1e-6 * max(values.max(initial=0.0), _TINY)).sum())
    return basis[:rank], basis[rank:]


def _frame(axes: Array, span: Array, along: Array) -> Array:
    """Return where the findings' levels are put, (F, D): orthogonal to each other as far as the axes are independent.

    It is the frame nearest to the axes (Löwdin 1950), the same in all silos that use the same findings. A finding weighs
    by how far the silo's views lie from its threshold; all of them together weigh `_EMPHASIS` times the other directions.
    """
    left, _, right = np.linalg.svd(axes @ span.T, full_matrices=False)
    weights = np.sqrt((along**2).mean(axis=0))
    weights /= max(float(np.linalg.norm(weights)), _TINY)
    scale = np.sqrt(_EMPHASIS * max(axes.shape[1] - len(span), 1))
    return np.asarray(scale * weights[:, None] * (left @ right @ span), np.float64)


def _sizes(along: Array, target: NDArray[np.float32], known: NDArray[np.bool_]) -> Array:
    """Return how far views lie from the threshold, (2, S), absent and present.

    Views that are known to belong to the other side do not count: where nearly all have a finding, what lies on the other
    side is mostly in error, and near the threshold. A side of few views is taken for both.
    """
    present = target > 0.5
    sides = [np.abs(along[(along < 0) & ~(known & present)]), np.abs(along[(along > 0) & ~(known & ~present)])]
    shares = np.linspace(0, 1, _STEPS)
    return np.stack([np.quantile(each if len(each) >= FEWEST else np.abs(along), shares) for each in sides])


def _whitening(vectors: Array, others: Array) -> tuple[Array, Array]:
    """Return the mean, (D,), of vectors (N, D) in the directions `others` (D - K, D), and what whitens them, (D, D).

    It is found in a basis of those directions alone: where embeddings do not fill their space, many directions have no
    variance, and none of them could be told from the findings' own by it.
    """
    inside = vectors @ others.T  # (N, D - K)
    mean = inside.mean(axis=0)
    apart = inside - mean
    values, turned = np.linalg.eigh(apart.T @ apart / len(vectors))
    values = np.maximum(values, 0)
    if not len(values) or values.mean() < _TINY:
        return mean @ others, np.zeros((vectors.shape[1], vectors.shape[1]))
    side = len(values)
    shrink = side / (side + _TRUST * len(vectors))
    drawn = (1 - shrink) * values + shrink * values.mean()
    return mean @ others, np.asarray(others.T @ (turned / np.sqrt(drawn)) @ turned.T @ others, np.float64)
