"""How good an encoder is on held-out patients, beside what no training at all achieves.

Every figure stands beside its floors (raw pixels, an untrained encoder, image statistics): on many chest X-ray sets they are
high. Balanced precision at k is the mean over the queries' classes, so that a common class cannot carry it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.dataset import Images
from silo_app.encoder.spec import EncoderSpec

__all__ = ["balanced_precision", "findings_auc", "neighbours", "pooled_auc", "raw_pixel_embeddings", "statistics"]


def findings_auc(spec: EncoderSpec, logits: NDArray[np.float32], images: Images) -> dict[str, float]:
    """Return the AUC of each finding that has present and absent cases; the others are left out, not invented."""
    return pooled_auc([str(finding) for finding in spec.findings], logits, images.targets, images.known)


def pooled_auc(
    names: Sequence[str], logits: NDArray[np.float32], targets: NDArray[np.float32], known: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the area under the ROC curve by finding; `logits`, `targets` and `known` are (N, F)."""
    from sklearn.metrics import roc_auc_score

    result = {}
    for column, name in enumerate(names):
        rows = known[:, column]
        truth = targets[rows, column]
        if 0 < truth.sum() < len(truth):
            result[name] = float(roc_auc_score(truth, logits[rows, column]))
    return result


def balanced_precision(query: NDArray[np.bool_], hits: Sequence[NDArray[np.bool_]], k: int) -> float | None:
    """Return the mean over the two classes of the share of the first `k` hits that share the query's class.

    `query` (Q,) is each query's class; `hits` holds each query's ranked hits' classes. None if a class has no query.
    A query with fewer than `k` hits counts the missing ones as wrong.
    """
    shares = np.array([np.sum(ranked[:k] == own) / k for own, ranked in zip(query, hits, strict=True)])
    if not query.any() or query.all():
        return None
    return float((shares[query].mean() + shares[~query].mean()) / 2)


def raw_pixel_embeddings(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images themselves as unit vectors, float32 (N, S * S), for the floor of retrieval."""
    vectors = pixels.reshape(len(pixels), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def neighbours(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    k: int,
) -> NDArray[np.int64]:
    """Return each query's `k` nearest rows of the gallery, int64 (Q, k), without those `excluded`, bool (Q, N)."""
    similarity = queries @ gallery.T
    similarity[excluded] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return eleven numbers of brightness and sharpness an image, float32 (N, 11): what an encoder must beat."""
    images = pixels.astype(np.float32) / 255
    flat = images.reshape(len(images), -1)
    quantiles = np.quantile(flat, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
    rows, columns = np.abs(np.diff(images, axis=1)), np.abs(np.diff(images, axis=2))
    sharpness = np.stack([part.reshape(len(images), -1).mean(axis=1) for part in (rows, columns)], axis=1)
    half = images.shape[1] // 2
    halves = np.stack([images[:, :half].mean(axis=(1, 2)), images[:, half:].mean(axis=(1, 2))], axis=1)
    mean, deviation = flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)
    return np.concatenate([quantiles, sharpness, halves, mean, deviation], axis=1).astype(np.float32)
