"""Siloscope's own MONAI reader: a DICOM X-ray as the standard says it is to be shown.

MONAI's `PydicomReader` transposes, applies the rescale slope only, and knows neither VOI LUTs nor MONOCHROME1; this
one reads through `imaging.read_radiograph` (Modality LUT, VOI LUT or window, polarity: DICOM PS3.3 C.11):

    LoadImage(reader=RadiographReader(), image_only=True, ensure_channel_first=True)
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader
from monai.utils.enums import MetaKeys
from numpy.typing import NDArray

from silo_app.imaging.radiograph import Radiograph, read_radiograph

__all__ = ["RadiographReader"]

Name = str | PathLike[str]


class RadiographReader(ImageReader):  # type: ignore[misc]
    """Reads one DICOM file into float32 (H, W) in [0, 1], bright = dense, rows first, square pixels."""

    def verify_suffix(self, filename: Sequence[Name] | Name) -> bool:
        """Accept every file: DICOM has no suffix to rely on, and `read` says what is wrong with one."""
        return isinstance(filename, str | PathLike)

    def read(self, data: Sequence[Name] | Name, **_: Any) -> Radiograph:
        """Read one file. Raises `ImageUnsupported` with its reason."""
        if not isinstance(data, str | PathLike):
            (data,) = data
        return read_radiograph(Path(data))

    def get_data(self, img: Radiograph) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the pixels and MONAI's meta data; nothing of the header that could name a patient is in them."""
        spacing = img.spacing_mm or 1.0
        meta = {
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # MONAI's word for "there is no channel dimension"
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.pixels.shape),
            MetaKeys.AFFINE: np.diag([spacing, spacing, 1.0]),
            MetaKeys.ORIGINAL_AFFINE: np.diag([spacing, spacing, 1.0]),
        }
        return img.pixels, meta
