"""The image asked with is shown as the encoder sees it, in its own shape."""

import io

import numpy as np
import pytest
from PIL import Image

from silo_app.encoder.transforms import squared
from silo_app.search.preview import preview


def shown(radiograph, size):
    with Image.open(io.BytesIO(preview(radiograph, size)), formats=["PNG"]) as image:
        assert (image.mode, image.info) == ("L", {})
        return np.asarray(image)


@pytest.mark.parametrize(
    ("shape", "expected"), [((64, 64), (32, 32)), ((64, 48), (32, 24)), ((30, 64), (16, 32)), ((512, 1), (32, 1))]
)
def test_its_shape_is_the_images(shape, expected):
    assert shown(np.ones(shape, np.float32), 32).shape == expected


def test_its_pixels_are_the_networks_and_nothing_of_the_black_around_them():
    radiograph = np.random.default_rng(1).uniform(0.5, 1, (64, 48)).astype(np.float32)
    assert np.array_equal(shown(radiograph, 32), squared(radiograph, 32)[:, 4:28])
    assert shown(radiograph, 32).min() >= 127
