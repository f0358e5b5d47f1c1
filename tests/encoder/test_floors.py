import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from silo_app.encoder.floors import raw_pixel_vectors, statistics, statistics_auc


def pixels(count=8, seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), np.uint8)


def test_raw_pixels_are_unit_vectors_without_brightness():
    images = pixels() // 4
    vectors = raw_pixel_vectors(images)
    assert vectors.shape == (8, 1024)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, raw_pixel_vectors(images + 50), atol=1e-5)


def test_a_blank_image_stays_finite():
    assert np.isfinite(raw_pixel_vectors(np.zeros((1, 32, 32), np.uint8))).all()


def test_large_raw_pixels_are_the_means_of_blocks():
    """Every block of one value: what is compared is what a smaller image would have given."""
    small = pixels(side=56)
    assert np.allclose(raw_pixel_vectors(small.repeat(4, axis=1).repeat(4, axis=2)), raw_pixel_vectors(small), atol=1e-6)


def test_pixels_at_the_edge_that_fill_no_block_are_left_out():
    images = pixels(side=131)
    assert raw_pixel_vectors(images).shape == (8, 43 * 43)
    assert np.array_equal(raw_pixel_vectors(images), raw_pixel_vectors(images[:, :129, :129]))


def test_many_images_are_what_each_is_by_itself():
    images = pixels(300)
    for function in (raw_pixel_vectors, statistics):
        alone = np.concatenate([function(images[row : row + 1]) for row in range(len(images))])
        assert np.allclose(function(images), alone, atol=1e-6)
        assert len(function(images[:0])) == 0


@given(arrays(np.uint8, st.tuples(st.just(2), st.integers(2, 9), st.integers(2, 9))))
def test_quantiles_are_numpys(images):
    expected = np.quantile(images.reshape(2, -1) / 255, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1).T
    assert np.allclose(statistics(images)[:, :5], expected, atol=1e-6)


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
