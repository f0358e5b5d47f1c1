import numpy as np
import pytest

from silo_app.imaging.samples.noise import blur, fast, texture


@pytest.mark.parametrize("sigma", [0.7, 4.0, 14.0, 40.0])
def test_a_blur_keeps_flat_fields_and_totals(sigma):
    flat = np.full((97, 131), 3.0, np.float32)
    np.testing.assert_allclose(blur(flat, sigma), flat, rtol=1e-4)


def test_a_blur_spreads_a_point_by_its_sigma():
    point = np.zeros((101, 101), np.float32)
    point[50, 50] = 1
    spread = blur(point, 3.0)
    columns = np.arange(101) - 50
    assert spread.sum() == pytest.approx(1, rel=1e-3)
    assert np.sqrt((spread.sum(axis=0) * columns**2).sum()) == pytest.approx(3.0, rel=0.02)


def test_a_wide_blur_from_the_small_image_is_the_wide_blur():
    image = np.zeros((160, 160), np.float32)
    image[:, 80:] = 1
    twice = blur(blur(image, 11.5), 11.5)  # both below the limit: exact; together 16.3
    assert np.abs(blur(image, np.hypot(11.5, 11.5)) - twice).max() < 0.01


def test_lengths_for_the_transform():
    assert [fast(n) for n in (1, 7, 11, 97, 250)] == [1, 8, 12, 100, 250]


def test_a_texture_is_standardised_and_coarse():
    field = texture(np.random.default_rng(1), (96, 90), slope=3.0, coarsest=40.0)
    assert abs(field.mean()) < 0.5
    assert field.std() == pytest.approx(1, rel=0.01)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.5  # neighbours are alike
