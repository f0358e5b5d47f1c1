"""A DICOM file -> a radiograph: float32 (H, W) in [0, 1], bright = dense, square pixels, at most 512 a side.

Whatever is not a single, grayscale, presentable X-ray image raises `ImageUnsupported` with one of `RefusalReason`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from silo_app.errors import ImageUnsupported
from silo_app.imaging.acceptance import check_acceptable
from silo_app.imaging.content import read_bytes
from silo_app.imaging.grayscale import display_curve, padding_values, stored_format
from silo_app.imaging.occurring import Occurring
from silo_app.imaging.parse import dataset_of, quiet
from silo_app.imaging.resample import MAX_SIDE, area_mean, ramp_of, target_shape
from silo_app.imaging.spacing import pixel_aspect, pixel_width_mm
from silo_app.imaging.stored import stored_pixels

__all__ = ["Radiograph", "naming", "radiograph_of", "read_radiograph"]


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One decoded image."""

    pixels: NDArray[np.float32]
    """(H, W) in [0, 1]; bright is dense; square pixels."""
    spacing_mm: float | None = None
    """Side of one pixel at the detector or, if the file is calibrated, in the patient; None if the file has none."""


def read_radiograph(source: Path | BinaryIO | bytes) -> Radiograph:
    """Read one DICOM file. Raises `ImageUnsupported`, whose `reason` is a `RefusalReason`, if it cannot be used."""
    with naming(source):
        return radiograph_of(dataset_of(read_bytes(source)))


@contextmanager
def naming(source: Path | BinaryIO | bytes) -> Iterator[None]:
    """Have a refusal of a file say which one it is of."""
    try:
        yield
    except ImageUnsupported as error:
        error.where = str(source) if isinstance(source, Path) else error.where
        raise


@quiet()
def radiograph_of(ds: Dataset, *, max_side: int = MAX_SIDE) -> Radiograph:
    """Turn a parsed dataset into a radiograph of at most `max_side` pixels a side; pure."""
    check_acceptable(ds)
    stored = stored_format(ds)
    pixels = stored_pixels(ds, stored)
    index = pixels.index  # uint16 (rows, columns): position of the stored value in stored.values
    occurring = Occurring(index, stored.bits, padding_values(ds, stored), pixels.largest)
    curve = display_curve(ds, stored, occurring)
    aspect = pixel_aspect(ds)
    height, width, step = target_shape(*index.shape, aspect=aspect, max_side=max_side)
    reduced = _reduced(curve, index, occurring, height, width)
    spacing = pixel_width_mm(ds)
    return Radiograph(pixels=reduced, spacing_mm=None if spacing is None else spacing * step)


def _reduced(
    curve: NDArray[np.float32],
    index: NDArray[np.uint16],
    occurring: Occurring,
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Map (rows, columns) through the curve and average to (height, width); padding is black and counts for nothing."""
    padding = occurring.padding
    if padding is None:
        return np.clip(area_mean(index, ramp_of(curve, *occurring.extremes) or curve, height, width), 0, 1)
    weight = (~padding).astype(np.float32)
    total = area_mean(index, curve * weight, height, width)
    share = area_mean(index, weight, height, width)
    return np.clip(np.where(share >= 0.5, total / np.maximum(share, 0.5), 0), 0, 1).astype(np.float32)
