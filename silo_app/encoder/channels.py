"""What a network reads of an image beside its grey levels: two forms of them that say nothing of exposure or detector.

Grey levels alone are a look as much as a finding: how dark a lung is depends on dose, detector and export. So the network
also sees each pixel against its surroundings, and each pixel's rank in its image. Neither has weights, and both are of one
image alone: silos need not agree on anything for them. They have a name (`preprocessing.CONTRASTS`), which is part of the
version of every encoder that reads them. What was measured: docs/explanation-encoder.md.
"""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["channels_of", "read"]

_PART = 7
"""A pixel's surroundings are a square of this part of the image's side."""
_STEADY = 0.15
"""Added to the local deviation, in deviations of the whole image: what is flat stays flat, not noise made large."""


def channels_of(channels: str) -> int:
    """Return how many channels a network reads (`EncoderSpec.channels`)."""
    return 1 if channels == "grey" else 3


def read(images: Tensor) -> Tensor:
    """Return standardised images (B, 1, S, S) as three channels, float32 (B, 3, S, S), each of them about as wide.

    They are the grey levels themselves; their difference from the mean of their surroundings over the deviation there
    (local contrast normalisation: Jarrett et al., "What is the best multi-stage architecture for object recognition?",
    ICCV 2009); and their rank (histogram equalisation: Pizer et al., "Adaptive histogram equalization and its variations",
    CVGIP 1987), where pixels of one level share one.
    """
    grey = images.float()
    return torch.cat([grey, _local(grey), _ranked(grey)], dim=1)


def _local(grey: Tensor) -> Tensor:
    side = grey.shape[-1] // _PART | 1
    apart = grey - _mean_around(grey, side)
    return apart / (_mean_around(apart**2, side).sqrt() + _STEADY)


def _mean_around(grey: Tensor, side: int) -> Tensor:
    """Return the mean of the square around each pixel, as far as it lies in the image: of rows, then of columns."""
    half = side // 2
    rows = functional.avg_pool2d(grey, (1, side), stride=1, padding=(0, half), count_include_pad=False)
    return functional.avg_pool2d(rows, (side, 1), stride=1, padding=(half, 0), count_include_pad=False)


def _ranked(grey: Tensor) -> Tensor:
    """Return each pixel's rank, from -sqrt(3) for the darkest of many to sqrt(3): evenly spread, with deviation 1."""
    ordered, order = grey.flatten(1).sort(dim=1)  # (B, S * S)
    places = torch.arange(ordered.shape[1], device=grey.device).expand_as(ordered)
    differ = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(functional.pad(differ, (1, 0), value=True), places, 0).cummax(dim=1).values
    ends = torch.where(functional.pad(differ, (0, 1), value=True), places, places.shape[1] - 1)
    last = ends.flip(1).cummin(dim=1).values.flip(1)
    share = (first + last + 1) / (2 * places.shape[1])  # (0, 1): the middle of the places of one level
    return torch.empty_like(ordered).scatter_(1, order, (share - 0.5) * 12**0.5).reshape(grey.shape)
