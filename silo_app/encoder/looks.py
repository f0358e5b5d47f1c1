"""A silo's look taken out of its embeddings, so that detectors, borders and exposure do not choose the neighbors; no torch.

What the findings head reads stays, as an order: how far an image lies on its side of the head's threshold, among the silo's
own training views on that side, from the least sure to the surest. Scores of one hospital's images may all lie further from
the threshold than another's, and the sure would meet the sure. All other directions are centered and whitened by what
the silo's own training views on that side of the threshold have in common, and follow from how sure the findings are; then
an image also loses what it shares with the training views that are nearest to it there. Nothing is shared for it: silos
that use the same encoder meet in the same space. What was measured, and what it does not do: docs/explanation-encoder.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from silo_app.cases import Split, View
from silo_app.encoder.labels import labels_of
from silo_app.encoder.spec import EncoderSpec
from silo_app.hex_rows import hex_rows

__all__ = ["FEWEST", "METHOD", "FindingsHead", "Look", "look_of", "without_look"]

METHOD = "by-side/4"
"""How looks are removed has a name too, which is part of the version of every encoder that they are removed for."""
FEWEST = 20
"""What fewer training views have in common, or fewer on either side of a finding, could not be told from chance."""
_EMPHASIS = 36.0
"""What the findings' directions weigh in a similarity, together, against all others together, at most."""
_NEAREST = 20
"""How many training views, at most, are near enough to an image that it loses what they have in common in the other
directions (localized centering: Hara et al., AAAI 2015); never more than a tenth of a kind's."""
_KEPT = 2048
"""So many training views of a kind are kept to be near to."""
_NOTHING_LEFT = 0.05
"""Where hardly more than this share of an image's other directions is its own, they are not made as long as others'."""
_AT_ONCE = 4096
"""Images compared at once with what is kept: 64 MB."""
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
_STEADY = 1.0
"""What holds slopes near 0 where levels hardly differ, in squared levels: those of one view that is surest."""
_DIGEST = 32
"""Bytes of a SHA-256."""
_WHOLE = ("near_kinds", "near_digests")
"""The parts that are whole numbers."""
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
    """(2, D): of both kinds, in the other directions, if the findings were on the threshold."""
    slopes: Array
    """(2, F, D): how these change with the findings' levels."""
    matrices: Array
    """(2, D, D): what whitens both kinds there, and leaves nothing of the findings' directions."""
    near: Array
    """(R, D): unit vectors in the whitened directions of training views, those of kind 0 first."""
    near_kinds: NDArray[np.uint8]
    """(R,): whose they are; of a kind of few views all stand for it."""
    near_digests: NDArray[np.uint8]
    """(R, 32): the radiographs of these views, to be forgotten with them; zeros if they were not said."""

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
        means, slopes = np.zeros((2, side)), np.zeros((2, len(axes), side))
        return cls(axes, frame, sizes, means, slopes, np.stack([others.T @ others] * 2), *_no_near(side))

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Return the look that `content` wrote. Raises `ValueError` if it is none."""
        try:
            found = load_tensors(content)
        except SafetensorError:
            raise ValueError("it cannot be read") from None
        if found.keys() != {field.name for field in fields(cls)}:
            raise ValueError("it has other parts than a look")
        parts: dict[str, Any] = {
            name: array.astype(np.uint8 if name in _WHOLE else np.float64) for name, array in found.items()
        }
        look = cls(**parts)
        count, side = look.axes.shape if look.axes.ndim == 2 else (0, 0)
        kept = len(look.near)
        shapes = {
            "frame": (count, side),
            "sizes": (count, 2, _STEPS),
            "means": (2, side),
            "slopes": (2, count, side),
            "matrices": (2, side, side),
            "near": (kept, side),
            "near_kinds": (kept,),
            "near_digests": (kept, _DIGEST),
        }
        if not side or any(getattr(look, name).shape != shape for name, shape in shapes.items()):
            raise ValueError("its parts do not fit each other")
        if look.near_kinds.tolist() != sorted(look.near_kinds) or look.near_kinds.max(initial=0) > 1:
            raise ValueError("it has kinds that are none, or not in order")
        if not all(np.isfinite(array).all() for array in found.values()):
            raise ValueError("it has numbers that are not finite")
        return look

    def content(self) -> bytes:
        """Return all of it to keep, as safetensors; numbers in float32."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return save_tensors({name: part if name in _WHOLE else part.astype(np.float32) for name, part in parts.items()})

    def only_near(self, digests: Collection[str]) -> Self:
        """Return it without the views whose radiographs are not among `digests`; what all had in common stays as it was."""
        rows = np.array([row.tobytes().hex() in digests for row in self.near_digests], np.bool_)
        if rows.all():
            return self
        return replace(self, near=self.near[rows], near_kinds=self.near_kinds[rows], near_digests=self.near_digests[rows])

    @property
    def dimension(self) -> int:
        """D of the embeddings that it is of."""
        return int(self.means.shape[1])

    def removed(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return unit vectors, float32 (N, D), without the look."""
        exact = vectors.astype(np.float64)
        along = exact @ self.axes.T  # (N, F)
        levels, kinds = _levels(along, self.sizes), _kinds(along)
        plain = levels @ self.frame
        for kind in (0, 1):
            rows = np.flatnonzero(kinds == kind)
            for some in np.array_split(rows, len(rows) // _AT_ONCE + 1):
                rest = self._rest(exact[some], levels[some], kind)
                plain[some] += self._own(rest, rest, kind)
        return _unit(plain).astype(np.float32)

    def transformed(self, places: Array) -> Array:
        """Return the parts of one image, (..., D), as it loses its look: their mean is what becomes of their mean.

        What happens to an image depends on where it lies; to its parts happens what happens to it, which is affine.
        """
        whole = places.reshape(-1, places.shape[-1]).mean(axis=0)
        along = whole @ self.axes.T  # (F,)
        gains = _levels(along[None], self.sizes)[0] / np.where(np.abs(along) < _TINY, _TINY, along)
        kind = int(_kinds(along))
        levels = places @ self.axes.T * gains  # (..., F)
        rest = self._rest(places, levels, kind)
        mean = rest.reshape(-1, rest.shape[-1]).mean(axis=0)
        return np.asarray(levels @ self.frame + self._own(rest, mean[None], kind), np.float64)

    def _rest(self, places: Array, levels: Array, kind: int) -> Array:
        """Return what images of a kind, or their parts, (..., D), have in the other directions, whitened."""
        return np.asarray((places - self.means[kind] - levels @ self.slopes[kind]) @ self.matrices[kind], np.float64)

    def _own(self, rest: Array, wholes: Array, kind: int) -> Array:
        """Return what of `rest`, (..., D), its images do not share with those nearest to them: as long as sqrt(D).

        `wholes` are the images' own, (N, D): `rest` itself, or one image's whose parts `rest` are.
        """
        near = self.near[slice(*np.searchsorted(self.near_kinds, (kind, kind + 1)))]  # (R, D), no copy
        lengths = np.linalg.norm(wholes, axis=1, keepdims=True)
        shared = np.zeros_like(wholes)
        if len(near):
            count = max(1, min(_NEAREST, len(near) // 10))
            nearest = np.argpartition(-(wholes @ near.T), count - 1, axis=1)[:, :count]  # (N, K)
            shared = lengths * near[nearest].mean(axis=1)
        left = np.linalg.norm(wholes - shared, axis=1, keepdims=True)
        scale = np.sqrt(wholes.shape[1]) / np.maximum(np.maximum(left, _NOTHING_LEFT * lengths), _TINY)
        return np.asarray((rest - shared) * scale, np.float64)


@dataclass(frozen=True, slots=True)
class FindingsHead:
    """What tells a finding from a look: the directions, float32 (F, D), by which an encoder reads its findings."""

    spec: EncoderSpec
    rows: NDArray[np.float32]

    def look(self, views: Sequence[View], vectors: NDArray[np.float32]) -> Look:
        """Return the look of a silo with these views and their unit vectors (N, D); held-out patients have no say."""
        targets, known = labels_of(views, self.spec)
        train = np.array([view.split is Split.TRAIN for view in views], np.bool_)
        digests = [view.digest for view, chosen in zip(views, train, strict=True) if chosen]
        return look_of(vectors[train], targets[train], known[train], self.rows, digests)


def look_of(
    vectors: NDArray[np.float32],
    targets: NDArray[np.float32],
    known: NDArray[np.bool_],
    head: NDArray[np.float32],
    digests: Sequence[str] | None = None,
) -> Look:
    """Return the look of a silo's training views: unit vectors (N, D) with labels (N, F); `head` (F, D) reads findings.

    `digests` (N,) name their radiographs, so that the look can forget one (`Look.only_near`). Findings of which the silo
    knows too little do not count; without any, all count that the head reads. With fewer than `FEWEST` views it is the
    head's alone (`Look.by_head`).
    """
    if len(vectors) < FEWEST:
        return Look.by_head(head)
    chosen = _usable(targets, known) or list(range(len(head)))
    axes = _unit(head[chosen])  # (F, D)
    exact = vectors.astype(np.float64)
    along = exact @ axes.T  # (N, F)
    span, others = _parted(axes)
    sizes = np.stack(
        [_sizes(column, *labels) for column, *labels in zip(along.T, targets.T[chosen], known.T[chosen], strict=True)]
    )
    levels, kinds = _levels(along, sizes), _kinds(along)
    found = []
    for kind in (False, True):
        rows = np.flatnonzero(kinds == kind)
        rows = rows if len(rows) >= _OF_A_KIND else np.arange(len(exact))
        mean, lean = _following(exact[rows], levels[rows], others)
        apart = exact[rows] - mean - levels[rows] @ lean
        matrix = _whitening(apart, others)
        some = np.linspace(0, len(rows) - 1, min(len(rows), _KEPT)).astype(np.int64)
        found.append((mean, lean, matrix, _unit(apart[some] @ matrix), rows[some]))
    means, leans, matrices, near, kept = zip(*found, strict=True)
    names = np.zeros((len(exact), _DIGEST), np.uint8) if digests is None else hex_rows(digests, _DIGEST)
    kinds_kept = np.repeat(np.arange(2, dtype=np.uint8), [len(rows) for rows in kept])
    return Look(
        axes,
        _frame(axes, span, along),
        sizes,
        np.stack(means),
        np.stack(leans),
        np.stack(matrices),
        np.concatenate(near),
        kinds_kept,
        names[np.concatenate(kept)],
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


def _levels(along: Array, sizes: Array) -> Array:
    """Return how sure the findings are, (N, F), from -1, surely absent, to 1; of what lies on the threshold, 0.

    `along` (N, F) is how far images lie along the findings, `sizes` (F, 2, S) how far training views do.
    """
    levels = np.zeros(along.shape)
    shares = np.linspace(_LEAST, 1, _STEPS)
    for finding, sides in enumerate(sizes):
        for side, sign in enumerate((-1, 1)):
            rows = np.sign(along[:, finding]) == sign
            levels[rows, finding] = sign * np.interp(np.abs(along[rows, finding]), sides[side], shares)
    return levels


def _kinds(along: Array) -> NDArray[np.bool_]:
    """Return of which kind images are, (...,), by how far they lie along the findings, (..., F): whether any is present."""
    return np.asarray((along > 0).any(axis=-1), np.bool_)


def _usable(targets: NDArray[np.float32], known: NDArray[np.bool_]) -> list[int]:
    present, absent = known & (targets > 0.5), known & (targets <= 0.5)
    enough = (present.sum(axis=0) >= FEWEST) & (absent.sum(axis=0) >= FEWEST)
    return [int(column) for column in np.flatnonzero(enough)]


def _unit(rows: NDArray[np.floating[Any]]) -> Array:
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


def _following(vectors: Array, levels: Array, others: Array) -> tuple[Array, Array]:
    """Return how vectors (N, D) follow from levels (N, F) in the directions `others`: at level 0, (D,); slopes, (F, D)."""
    inside = vectors @ others.T @ others
    mean, middle = inside.mean(axis=0), levels.mean(axis=0)
    spread = levels - middle
    slopes = np.linalg.solve(spread.T @ spread + _STEADY * np.eye(levels.shape[1]), spread.T @ (inside - mean))
    return mean - middle @ slopes, slopes


def _whitening(apart: Array, others: Array) -> Array:
    """Return what whitens vectors, (N, D) with mean 0, in the directions `others` (D - K, D): (D, D).

    It is found in a basis of those directions alone: where embeddings do not fill their space, many directions have no
    variance, and none of them could be told from the findings' own by it.
    """
    inside = apart @ others.T  # (N, D - K)
    values, turned = np.linalg.eigh(inside.T @ inside / len(inside))
    values = np.maximum(values, 0)
    if not len(values) or values.mean() < _TINY:
        return np.zeros((apart.shape[1], apart.shape[1]))
    side = len(values)
    shrink = side / (side + _TRUST * len(inside))
    drawn = (1 - shrink) * values + shrink * values.mean()
    return np.asarray(others.T @ (turned / np.sqrt(drawn)) @ turned.T @ others, np.float64)


def _no_near(side: int) -> tuple[Array, NDArray[np.uint8], NDArray[np.uint8]]:
    return np.zeros((0, side)), np.zeros(0, np.uint8), np.zeros((0, _DIGEST), np.uint8)
