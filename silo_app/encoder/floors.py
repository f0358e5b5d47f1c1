"""What no training at all achieves: raw pixels, image statistics. Every report shows them beside the encoder; no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.metrics import auc

__all__ = ["raw_pixel_vectors", "statistics", "statistics_auc"]


def raw_pixel_vectors(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images themselves, centred, as unit vectors, float32 (N, S * S), of uint8 (N, S, S)."""
    vectors = pixels.reshape(len(pixels), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), np.float32)


def statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return eleven numbers of brightness and sharpness an image, float32 (N, 11), of uint8 (N, S, S)."""
    images = pixels.astype(np.float32) / 255
    flat = images.reshape(len(images), -1)
    quantiles = np.quantile(flat, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
    rows, columns = np.abs(np.diff(images, axis=1)), np.abs(np.diff(images, axis=2))
    sharpness = np.stack([part.reshape(len(images), -1).mean(axis=1) for part in (rows, columns)], axis=1)
    half = images.shape[1] // 2
    halves = np.stack([images[:, :half].mean(axis=(1, 2)), images[:, half:].mean(axis=(1, 2))], axis=1)
    mean, deviation = flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)
    return np.concatenate([quantiles, sharpness, halves, mean, deviation], axis=1).astype(np.float32)


def statistics_auc(
    names: Sequence[str],
    pixels: NDArray[np.uint8],
    targets: NDArray[np.float32],
    known: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
) -> dict[str, float]:
    """Return each finding's AUC on held-out views of gradient boosting on the statistics, trained on the other views.

    Labels are (N, F), `held_out` (N,). A finding with too few views of a class on either side is left out.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    numbers = statistics(pixels)
    result = {}
    for column, name in enumerate(names):
        train, test = known[:, column] & ~held_out, known[:, column] & held_out
        truth = targets[:, column] > 0.5
        if min(truth[train].sum(), (~truth[train]).sum(), truth[test].sum(), (~truth[test]).sum()) == 0:
            continue
        model = GradientBoostingClassifier(random_state=0).fit(numbers[train], truth[train])
        scores = model.predict_proba(numbers[test])[:, 1]
        result[name] = float(auc(truth[test], scores, np.ones((1, int(test.sum()))))[0])
    return result
