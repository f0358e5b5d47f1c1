"""A DICOM file -> the file of the same radiograph without the patient.

Pixels are decoded and written anew as plain values: comments in a compressed stream, bytes behind the last pixel, and
overlays in unused bits do not come along. So are the preamble and the meta information (PS3.10 7.1), which hold an
application's name and anything a vendor likes.
"""

import io

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from silo_app.imaging.acceptance import check_acceptable
from silo_app.imaging.attributes import text
from silo_app.imaging.deidentify.names import Names
from silo_app.imaging.deidentify.profile import Seen, deidentify
from silo_app.imaging.grayscale import StoredFormat, stored_format
from silo_app.imaging.parse import dataset_of, quiet
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.stored import stored_pixels

__all__ = ["deidentified", "encoded"]

_LUT_DATA = Tag("LUTData")
_STREAM = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PlanarConfiguration", "FloatPixelData")


@quiet()
def deidentified(content: bytes, names: Names, seen: Seen | None = None) -> Dataset:
    """Return a file's radiograph without the patient. Raises `ImageUnsupported` for what a silo would not take."""
    ds = dataset_of(content, everything=True)
    check_acceptable(ds)
    stored = stored_format(ds)
    pixels = stored_pixels(ds, stored).index  # uint16 (rows, columns), 0 is the lowest storable value
    words_are_swapped = text(ds.file_meta, "TransferSyntaxUID") == ExplicitVRBigEndian
    deidentify(ds, names, seen)
    _rewrite(ds, pixels, stored)
    if words_are_swapped:
        _swap_tables(ds)
    _describe(ds)
    return ds


def encoded(ds: Dataset) -> bytes:
    """Return the DICOM file of a dataset that `deidentified` returned."""
    file = io.BytesIO()
    with quiet():
        try:
            pydicom.dcmwrite(file, ds, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001  (a kept number may still be unwritable; its text is not quoted)
            raise refusal(RefusalReason.WRONG_VR, f"an attribute cannot be written ({type(error).__name__})") from None
    return file.getvalue()


def _rewrite(ds: Dataset, pixels: NDArray[np.uint16], stored: StoredFormat) -> None:
    """Put decoded pixels into the dataset as plain values, `stored.bits` of each in use."""
    values = pixels.astype(np.int32) + stored.lowest
    kind = ("i" if stored.signed else "u") + str(stored.allocated // 8)
    plain = values.astype(f"<{kind}").tobytes()
    for keyword in _STREAM:
        if keyword in ds:
            delattr(ds, keyword)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = stored.allocated, stored.bits, stored.bits - 1
    ds.PixelRepresentation = int(stored.signed)
    ds.PixelData = plain + b"\0" * (len(plain) % 2)
    ds["PixelData"].VR = "OW" if stored.allocated > 8 else "OB"


def _swap_tables(ds: Dataset) -> None:
    """Turn lookup tables that are kept as words of a big-endian file (PS3.5 7.3): a copy is little-endian."""
    for element in ds.iterall():
        if element.tag == _LUT_DATA and isinstance(element.value, bytes):
            whole = len(element.value) // 2 * 2
            element.value = np.frombuffer(element.value[:whole], ">u2").astype("<u2").tobytes()


def _describe(ds: Dataset) -> None:
    """Write the preamble and the meta information anew, with nothing in them but what a reader needs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(text(ds, "SOPClassUID"))
    meta.MediaStorageSOPInstanceUID = UID(text(ds, "SOPInstanceUID"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.preamble = b"\0" * 128
    ds.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
