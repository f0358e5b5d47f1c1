"""From radiograph to network input, and augmentation fit for radiographs.

No flips: left and right, up and down mean something in a chest. Geometry stays small, photometry is strong, because two
hospitals' detectors differ more in grey levels than in anything else.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

__all__ = ["augment", "squared", "standardised"]


_ROTATION = 0.17  # radians
_SCALE = 0.10
_SHIFT = 0.10  # of half the side
_LOG_GAMMA = 0.4
_NOISE = 0.02
_STRONG_LOG_GAMMA = 0.8
_LIGHT = 0.2  # of the grey scale, from one side of the image to the other
_WIDEST_FRAME = 0.08  # of the side


def squared(radiograph: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """Pad a radiograph, float32 (H, W) in [0, 1], to a square with black and reduce it by area: uint8 (size, size)."""
    height, width = radiograph.shape
    side = max(height, width)
    square = np.zeros((side, side), np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = radiograph
    resample = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    reduced = Image.fromarray(square).resize((size, size), resample)
    return np.asarray(np.rint(np.clip(np.asarray(reduced), 0, 1) * 255), dtype=np.uint8)


def standardised(images: Tensor) -> Tensor:
    """Return uint8 or float images of 0..255, (B, 1, S, S), with mean 0 and deviation 1 each: exposure is no sign."""
    images = images.float() / 255
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    return (images - mean) / (deviation + 1e-3)


def augment(images: Tensor, generator: torch.Generator, *, strong: bool = False, movement: float = 1.0) -> Tensor:
    """Return slightly moved images of another exposure: float32 (B, 1, S, S) of 0..255.

    `images` and `generator` are on one device. `strong` also changes sharpness, illumination and borders, so that none of
    them can tell a hospital. `movement` is a multiple of the usual geometry.
    """
    count = len(images)

    def uniform(bound: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator, device=generator.device) * 2 - 1) * bound

    angle, scale = uniform(_ROTATION * movement), 1 + uniform(_SCALE * movement)
    affine = torch.zeros(count, 2, 3, device=generator.device)
    affine[:, 0, 0] = affine[:, 1, 1] = torch.cos(angle) * scale
    affine[:, 0, 1], affine[:, 1, 0] = -torch.sin(angle) * scale, torch.sin(angle) * scale
    affine[:, :, 2] = uniform(_SHIFT * movement, 2)
    images = images.float() / 255
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if strong:
        moved = _framed(_lit(_blurred(moved, generator), generator), generator)
    exposed = moved.clamp(0, 1) ** torch.exp(uniform(_STRONG_LOG_GAMMA if strong else _LOG_GAMMA, 1, 1, 1))
    noise = torch.randn(exposed.shape, generator=generator, device=generator.device) * _NOISE
    return (exposed + noise).clamp(0, 1) * 255


def _blurred(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mix each image (B, 1, S, S) with its blurred self: detectors and resampling differ in sharpness."""
    share = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return images * (1 - share) + functional.avg_pool2d(padded, 3, stride=1) * share


def _lit(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add a plane of light to each image (B, 1, S, S): beams are not even."""
    slope = (torch.rand(len(images), 2, 1, 1, 1, generator=generator, device=generator.device) - 0.5) * _LIGHT
    ramp = torch.linspace(-1, 1, images.shape[-1], device=images.device)
    return images + slope[:, 0] * ramp[None, None, :, None] + slope[:, 1] * ramp


def _framed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Paint a frame of one grey over each image (B, 1, S, S): borders and markers are a hospital's, not a patient's."""
    side = images.shape[-1]
    width, grey = (torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device) for _ in range(2))
    width = width * _WIDEST_FRAME * side
    place = torch.arange(side, device=images.device)
    edge = torch.minimum(place, side - 1 - place)
    return torch.where(torch.minimum(edge[:, None], edge) < width.floor(), grey, images)
