import numpy as np

from silo_app.encoder.floors import raw_pixel_vectors, statistics, statistics_auc


def pixels(count=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32), np.uint8)


def test_raw_pixels_are_unit_vectors_without_brightness():
    images = pixels() // 4
    vectors = raw_pixel_vectors(images)
    assert vectors.shape == (8, 1024)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, raw_pixel_vectors(images + 50), atol=1e-5)


def test_a_blank_image_stays_finite():
    assert np.isfinite(raw_pixel_vectors(np.zeros((1, 32, 32), np.uint8))).all()


def test_statistics_are_eleven_numbers_that_know_nothing_of_places():
    images = pixels()
    assert statistics(images).shape == (8, 11)
    assert np.allclose(statistics(images)[:, :5], statistics(images[:, :, ::-1])[:, :5])


def test_brightness_alone_gives_the_floor_its_auc():
    rng = np.random.default_rng(0)
    truth = np.arange(80) % 2
    images = (pixels(80) // 2 + 60 * truth[:, None, None]).astype(np.uint8)
    targets, known = truth[:, None].astype(np.float32), np.ones((80, 1), np.bool_)
    held_out = rng.random(80) < 0.4
    assert statistics_auc(["Mass"], images, targets, known, held_out)["Mass"] > 0.95
    shuffled = rng.permutation(targets)
    assert 0.2 < statistics_auc(["Mass"], images, shuffled, known, held_out)["Mass"] < 0.8


def test_a_finding_without_both_classes_on_both_sides_is_left_out():
    targets, known = np.zeros((8, 1), np.float32), np.ones((8, 1), np.bool_)
    assert statistics_auc(["Mass"], pixels(), targets, known, np.arange(8) < 4) == {}
