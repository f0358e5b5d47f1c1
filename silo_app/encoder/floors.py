"""What no training at all achieves: raw pixels, image statistics. Every report shows them beside the encoder; no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from silo_app.encoder.metrics import auc

__all__ = ["raw_pixel_vectors", "statistics", "statistics_auc"]


_CHUNK = 256
"""Images at once: a hospital's as float32 would not fit into memory."""
_RAW_SIDE = 64
"""Pixels on a side, at most, by which raw pixels are compared: N images of 224 pixels would be 50,000 numbers each."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def raw_pixel_vectors(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images themselves, centred, as unit vectors, float32 (N, s * s), of uint8 (N, S, S).

    Above 64 pixels on a side s is S over the next whole number, and a value the mean over a block.
    """
    side, block = pixels.shape[1], -(-pixels.shape[1] // _RAW_SIDE)
    s = side // block
    vectors = np.empty((len(pixels), s * s), np.float32)
    for start in range(0, len(pixels), _CHUNK):
        part = pixels[start : start + _CHUNK, : s * block, : s * block]
        small = part.reshape(len(part), s, block, s, block).mean(axis=(2, 4), dtype=np.float32).reshape(len(part), -1)
        small -= small.mean(axis=1, keepdims=True)
        vectors[start : start + _CHUNK] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return vectors


def statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return eleven numbers of brightness and sharpness an image, float32 (N, 11), of uint8 (N, S, S)."""
    parts = [_statistics(pixels[start : start + _CHUNK]) for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate([np.empty((0, 11), np.float32), *parts])


def _statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    images = pixels.astype(np.float32) / 255
    flat = images.reshape(len(images), -1)
    rows, columns = np.abs(np.diff(images, axis=1)), np.abs(np.diff(images, axis=2))
    sharpness = np.stack([part.reshape(len(images), -1).mean(axis=1) for part in (rows, columns)], axis=1)
    half = images.shape[1] // 2
    halves = np.stack([images[:, :half].mean(axis=(1, 2)), images[:, half:].mean(axis=(1, 2))], axis=1)
    mean, deviation = flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)
    return np.concatenate([_quantiles(pixels), sharpness, halves, mean, deviation], axis=1).astype(np.float32)


def _quantiles(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return each image's quantiles, float64 (N, 5) in [0, 1], linear between two values: counted, not sorted."""
    flat = pixels.reshape(len(pixels), -1)
    of_image = np.arange(len(pixels))[:, None] * 256
    upto = np.bincount((flat + of_image).ravel(), minlength=256 * len(pixels)).reshape(-1, 256).cumsum(axis=1)
    places = np.array(_QUANTILES) * (flat.shape[1] - 1)
    low, high = ((upto[:, None] <= np.floor(place)[:, None]).sum(axis=2) for place in (places, np.ceil(places)))  # (N, 5)
    between: NDArray[np.float64] = (low + (high - low) * (places % 1)) / 255
    return between


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
