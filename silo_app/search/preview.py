"""The image asked with as the encoder sees it: its very pixels, without the black that makes it square."""

import io

import numpy as np
from numpy.typing import NDArray

__all__ = ["preview"]


def preview(radiograph: NDArray[np.float32], size: int) -> bytes:
    """Return a radiograph, float32 (H, W) in [0, 1], as a gray PNG of at most `size` pixels a side.

    It holds pixels and nothing else of the file. Fractions of the image (`encoder.region.Region`) are fractions of it.
    """
    from PIL import Image

    from silo_app.encoder.transforms import squared

    height, width = radiograph.shape
    side = max(height, width)
    top, left = ((side - length) // 2 / side for length in (height, width))
    rows, columns = _within(top, height / side, size), _within(left, width / side, size)
    file = io.BytesIO()
    Image.fromarray(squared(radiograph, size)[rows, columns]).save(file, "PNG")
    return file.getvalue()


def _within(start: float, extent: float, size: int) -> slice:
    """Return the pixels of `size` that lie in an interval of [0, 1], at least one."""
    first = min(round(start * size), size - 1)
    return slice(first, max(first + 1, round((start + extent) * size)))
