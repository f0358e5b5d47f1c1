"""A part of an image, and what the grid of an encoder's feature map has to do with it; numpy only, no torch.

A radiograph is padded to a square before it is reduced (`transforms.squared`); the feature map lies over that square. So a
region of the radiograph covers cells of the map by area, and a map over the square is cut back to the radiograph.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from silo_app.errors import ConfigInvalid

__all__ = ["Region", "cell_weights", "over_radiograph"]

SMALLEST = 0.05
"""The least width and height of a region: what is smaller holds hardly a pixel of what an encoder sees."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in fractions of a radiograph's width and height: (0, 0) is its upper left corner, (1, 1) the lower right.

    Raises `ConfigInvalid` for one that leaves the image, is empty, or has a side below `SMALLEST`.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        """Check it."""
        inside = all(0 <= value <= 1 for value in (self.left, self.top, self.right, self.bottom))  # NaN is not
        if not inside or min(self.right - self.left, self.bottom - self.top) < SMALLEST - 1e-9:
            raise ConfigInvalid(
                f"{self} is no part of an image",
                where="region",
                remedy="Give LEFT,TOP,RIGHT,BOTTOM as fractions of the image, as 0.1,0.2,0.5,0.6; "
                f"each side must be at least {SMALLEST:g}.",
            )

    def __str__(self) -> str:
        """Return it as people type it."""
        return f"{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Read "LEFT,TOP,RIGHT,BOTTOM". Raises `ConfigInvalid`."""
        try:
            left, top, right, bottom = (float(part) for part in text.split(","))
        except ValueError:
            raise ConfigInvalid(
                f"{text!r} does not name a part of an image",
                where="region",
                remedy="Give four fractions of the image, LEFT,TOP,RIGHT,BOTTOM, as 0.1,0.2,0.5,0.6.",
            ) from None
        return cls(left, top, right, bottom)


def cell_weights(region: Region, shape: tuple[int, int], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return which share of the region lies in each cell of the map, float64 (h, w) with sum 1.

    `shape` is the radiograph's (H, W), `grid` the map's (h, w) over the padded square.
    """
    (top, height), (left, width) = _extent(shape)
    rows = _overlap(top + region.top * height, top + region.bottom * height, grid[0])
    columns = _overlap(left + region.left * width, left + region.right * width, grid[1])
    weights: NDArray[np.float64] = np.outer(rows, columns)
    return np.asarray(weights / weights.sum(), np.float64)


def over_radiograph(grid: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map (h, w) over the padded square, smoothly enlarged and cut to the radiograph: float32 (H, W) = `shape`."""
    side = max(shape)
    large = np.asarray(Image.fromarray(grid.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR), np.float32)
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    return large[top : top + shape[0], left : left + shape[1]]


def _extent(shape: tuple[int, int]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where the radiograph begins in the square, and how far it reaches, in fractions: down and across."""
    side = max(shape)
    down, across = ((((side - length) // 2) / side, length / side) for length in shape)
    return down, across


def _overlap(start: float, stop: float, cells: int) -> NDArray[np.float64]:
    """Return how much of the interval lies in each of `cells` equal parts of [0, 1], float64 (cells,)."""
    edges = np.linspace(0, 1, cells + 1)
    return np.asarray(np.clip(np.minimum(stop, edges[1:]) - np.maximum(start, edges[:-1]), 0, None), np.float64)
