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


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return slightly moved images of another exposure: float32 (B, 1, S, S) of 0..255."""
    count = len(images)

    def uniform(bound: float, *shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * bound

    angle, scale = uniform(_ROTATION), 1 + uniform(_SCALE)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = torch.cos(angle) * scale
    affine[:, 0, 1], affine[:, 1, 0] = -torch.sin(angle) * scale, torch.sin(angle) * scale
    affine[:, :, 2] = uniform(_SHIFT, 2)
    images = images.float() / 255
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    exposed = moved.clamp(0, 1) ** torch.exp(uniform(_LOG_GAMMA, 1, 1, 1))
    noise = torch.randn(exposed.shape, generator=generator) * _NOISE
    return (exposed + noise).clamp(0, 1) * 255
