"""Turns one image of a set into a DICOM file, without losing a value of a pixel."""

import io
import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.uid import ComputedRadiographyImageStorage

from silo_app.errors import ImageUnsupported
from silo_app.imaging.samples.dicom_file import Display, Identity, add_pixels, equipment, header, write
from silo_app.imaging.samples.records import Record

MOST_PIXELS = 64_000_000
COLOR = 6
"""By how much red, green and blue may differ in an image that is taken for grey (JPEG rounds them)."""
_REMEDY = "Give a grey PNG or JPEG."


def decode(content: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the grey values (H, W) of a PNG or JPEG, 8 or 16 bits. Raises `ImageUnsupported`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of bombs and of damage
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageUnsupported("too many pixels", reason="too-large", remedy=_REMEDY)
                return _grey(image)
    except UnidentifiedImageError:
        raise ImageUnsupported("not a PNG or JPEG", reason="not-an-image", remedy=_REMEDY) from None
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        raise ImageUnsupported("damaged, or too large", reason="damaged", remedy=_REMEDY) from None


def _grey(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in {"L", "1"}:
        return np.asarray(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0].copy()
    if image.mode not in {"RGB", "RGBA", "P"}:
        raise ImageUnsupported(f"mode {image.mode}", reason="color", remedy=_REMEDY)
    color = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # (H, W, 3)
    first = color[..., 0]
    if np.array_equal(first, color[..., 1]) and np.array_equal(first, color[..., 2]):
        return first.copy()
    if int(np.ptp(color, axis=2).max()) > COLOR:
        raise ImageUnsupported("in color", reason="color", remedy=_REMEDY)
    return np.asarray(Image.fromarray(color).convert("L"))


def write_image(content: bytes, record: Record, identity: Identity, source: str, file: Path) -> None:
    """Write one image of a set as a CR image for presentation. Raises `ImageUnsupported`."""
    pixels = decode(content)
    kind = "JPEG" if content[:2] == b"\xff\xd8" else "PNG"
    ds = header(identity, ComputedRadiographyImageStorage, record.position, "Chest, converted from an image file")
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.PatientOrientation = ""
    ds.ConversionType = "DI"
    ds.DerivationDescription = _text(f"Converted from {kind} {source}, pixel values unchanged")
    ds.ImageComments = "Converted from an image file; acquisition, spacing and dates are unknown"
    ds.ContributingEquipmentSequence = [equipment("Converted the file", code="109103", meaning="Modifying Equipment")]
    ds.Manufacturer = ""
    if kind == "JPEG":
        ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
        ds.LossyImageCompressionRatio = round(pixels.nbytes / len(content), 2)
    bits = pixels.itemsize * 8
    add_pixels(ds, pixels, bits, Display(window=(2.0 ** (bits - 1), 2.0**bits)))
    write(ds, file)


def _text(value: str) -> str:
    """Return `value` as a header may hold it: printable, at most 1024 characters (ST, PS3.5 6.2)."""
    return re.sub(r"[^\x20-\x7e]|\\", "_", value)[:1024]
