import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.encoder.transforms import augment, squared, standardised


def test_a_tall_image_is_padded_with_black_on_both_sides():
    result = squared(np.ones((64, 32), np.float32), 32)
    assert result.dtype == np.uint8
    assert result.shape == (32, 32)
    assert (result[:, :8] == 0).all()
    assert (result[:, 8:24] == 255).all()
    assert (result[:, 24:] == 0).all()


def test_reduction_is_by_area():
    fine = np.zeros((64, 64), np.float32)
    fine[::2, ::2] = 1  # a quarter of every 2 x 2 block
    assert (squared(fine, 32) == 64).all()


def test_a_small_image_is_enlarged():
    assert squared(np.full((5, 5), 0.5, np.float32), 32).shape == (32, 32)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.2, 1), offset=st.floats(0, 0.5), seed=st.integers(0, 99))
def test_exposure_does_not_change_the_input_of_the_network(gain, offset, seed):
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 255
    assert torch.allclose(standardised(image), standardised(image * gain + offset * 255), atol=0.05)


def test_a_blank_image_stays_finite():
    assert torch.isfinite(standardised(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))).all()


@pytest.mark.parametrize("strong", [False, True])
def test_augmentation_is_reproducible_and_differs_between_images(strong):
    images = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8).repeat(2, 1, 1, 1)
    first, again = (augment(images, torch.Generator().manual_seed(1), strong=strong) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    assert first.shape == images.shape
    assert 0 <= first.min() <= first.max() <= 255


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_augmentation_never_flips(side, strong):
    """A bright half stays on its side, in each of many draws."""
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    bright = {
        "left": (..., slice(0, 16)),
        "right": (..., slice(16, 32)),
        "top": (..., slice(0, 16), slice(None)),
        "bottom": (..., slice(16, 32), slice(None)),
    }[side]
    image[bright] = 200
    moved = augment(image.repeat(50, 1, 1, 1), torch.Generator().manual_seed(0), strong=strong)
    dark = (image[0, 0] == 0).float()
    inner = torch.zeros_like(dark)
    inner[4:-4, 4:-4] = 1  # strong augmentation paints over the border
    inside, outside = ((moved[:, 0] * part * inner).sum(dim=(1, 2)) for part in (1 - dark, dark))
    assert (inside > (1.2 if strong else 2) * outside).all()  # strong gamma and light lift the dark half


def test_strong_augmentation_hides_a_marker_at_the_border_more_often_than_mild():
    image = torch.full((1, 1, 64, 64), 100, dtype=torch.uint8)
    image[..., :2, :] = 255
    kept = [
        augment(image.repeat(200, 1, 1, 1), torch.Generator().manual_seed(0), strong=s)[..., :2, :] for s in (False, True)
    ]
    mild, strong = ((one > 220).float().mean().item() for one in kept)
    assert strong < mild


@pytest.mark.parametrize("movement", [0.0, 1.0])
def test_movement_says_how_far_images_are_turned_and_shifted(movement):
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    image[..., 14:18, 14:18] = 255
    views = augment(image.repeat(40, 1, 1, 1), torch.Generator().manual_seed(0), movement=movement)
    bright = views > 128
    assert bool((bright == bright[:1]).all()) is (movement == 0)
