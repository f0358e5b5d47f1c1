"""Brightness and position must not give a phantom's findings away (a trained encoder's macro-AUC is about 0.86).

Two floors are measured on one small set: nearest neighbours of raw pixels, and image statistics with a random
forest. Neither may be further above chance than a quarter of what the encoder is, beside sampling error; that error
is three standard deviations of the same score for labels that were shuffled among the images.
"""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from silo_app.imaging.samples.acquisition import expose
from silo_app.imaging.samples.findings import SCOPE
from silo_app.imaging.samples.hospitals import hospital
from silo_app.imaging.samples.patients import draw_patient

ENCODER = 0.86
NEAR = 0.5 + (ENCODER - 0.5) / 4
COARSER = 5  # the pictures are rendered so much smaller, which neither floor minds


@pytest.fixture(scope="module", params=[0, 1])
def pictures(request):
    """Return 200 pictures of as many patients of one hospital, float32 (N, H, W), and their findings, bool (N, 6)."""
    where = hospital(request.param)
    usual = where.room
    size = {"rows": usual.rows // COARSER, "columns": usual.columns // COARSER, "spacing": usual.spacing * COARSER}
    room = replace(usual, **size, photons=usual.photons * COARSER**2)
    images, truth = [], []
    for number in range(200):
        random = np.random.default_rng((2024, request.param, number))
        patient = draw_patient(where, 1, random)
        abnormal = patient.visits[0].abnormal
        images.append(expose(patient.anatomy, abnormal, room, random).picture)
        truth.append([any(one.finding is finding for one in abnormal) for finding in SCOPE])
    return np.array(images), np.array(truth)


def macro_auc(truth, scores):
    return np.mean([roc_auc_score(truth[:, k], scores[:, k]) for k in range(truth.shape[1])])


def bound(truth, score):
    """Return what `score(labels)` may reach: near chance, and three deviations of it under shuffled labels."""
    random = np.random.default_rng(0)
    shuffled = [macro_auc(labels, score(labels)) for labels in (random.permutation(truth) for _ in range(100))]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.03)
    return NEAR + 3 * np.std(shuffled)


def test_raw_pixel_neighbours_stay_near_chance(pictures):
    images, truth = pictures
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    similarity = flat @ flat.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :10]  # (N, 10)

    def score(labels):
        return labels[nearest].mean(axis=1)

    assert macro_auc(truth, score(truth)) < bound(truth, score)


def statistics(image):
    """Return eleven numbers of brightness, contrast and sharpness of one picture."""
    slopes = np.hypot(*np.gradient(image))
    centred = image - image.mean()
    bends = [np.abs(np.diff(image, 2, axis=axis)).mean() for axis in (0, 1)]
    shape = [image.mean(), image.std(), (centred**3).mean() / image.std() ** 3]
    return [*shape, *np.percentile(image, [5, 25, 75, 95]), slopes.mean(), slopes.std(), *bends]


def test_image_statistics_stay_near_chance(pictures):
    images, truth = pictures
    features = np.array([statistics(image) for image in images])
    forest = RandomForestRegressor(150, min_samples_leaf=4, random_state=0)
    scores = cross_val_predict(forest, features, truth.astype(float), cv=5)  # (N, 6)
    assert macro_auc(truth, scores) < bound(truth, lambda _: scores)
