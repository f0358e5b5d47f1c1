"""Bytes of a file -> DICOM dataset, with a bound on memory, before anything in it is believed (DICOM PS3.10).

Only the attributes that Siloscope uses are kept. A file that declares more than it holds is refused here, since
pydicom returns what it could read of it without an error.
"""

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from silo_app.errors import ImageUnsupported
from silo_app.imaging.content import MAX_FILE_BYTES
from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["LOOKED_AT", "dataset_of", "quiet"]

_IMAGE_KEYWORDS = (
    "SOPClassUID Modality ConversionType PresentationIntentType SamplesPerPixel PhotometricInterpretation "
    "NumberOfFrames Rows Columns PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio "
    "BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit PlanarConfiguration "
    "SmallestImagePixelValue LargestImagePixelValue RescaleIntercept RescaleSlope ModalityLUTSequence VOILUTSequence "
    "WindowCenter WindowWidth VOILUTFunction PresentationLUTShape PixelData FloatPixelData DoubleFloatPixelData "
    "ExtendedOffsetTable ExtendedOffsetTableLengths"
)
_HEADER_KEYWORDS = (
    "SOPInstanceUID StudyInstanceUID SeriesInstanceUID AccessionNumber PatientID IssuerOfPatientID PatientSex "
    "PatientAge PatientBirthDate StudyDate AcquisitionDate ContentDate ViewPosition ViewCodeSequence Manufacturer "
    "ManufacturerModelName BodyPartExamined BurnedInAnnotation RecognizableVisualFeatures ImageType"
)

LOOKED_AT = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian})
"""Transfer syntaxes whose pixels lie in the file as they lie in memory."""
_PIXEL_DATA = Tag(0x7FE0, 0x0010)
_LONG = 1 << 20
"""Bytes; only pixels are longer."""
_UNDEFINED_LENGTH = 0xFFFFFFFF
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_PIXEL_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # (7FE0,0010) in little and in big endian

# pydicom and its decoders quote values of a broken file in warnings and logs: identifiers. Nothing of it reaches ours.
for _name in ("pydicom", "pylibjpeg", "openjpeg", "PIL"):
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.setLevel(logging.CRITICAL + 1)
    _logger.propagate = False
warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")

_filters = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings out of stderr, and out of exceptions where warnings are errors."""
    with _filters, warnings.catch_warnings():  # the filters are the process's: one thread at a time
        warnings.simplefilter("ignore")
        yield


def dataset_of(content: bytes, *, also: tuple[str, ...] = (), everything: bool = False) -> Dataset:
    """Parse a file: the attributes that Siloscope uses and `also`, or everything in it.

    Raises `ImageUnsupported` (not-dicom, truncated, too-large) for what is not a whole DICOM file.
    """
    if len(content) > MAX_FILE_BYTES:
        raise refusal(RefusalReason.TOO_LARGE, f"{len(content) >> 20} MiB in one file; the limit is 256 MiB")
    if not _looks_like_dicom(content):
        raise refusal(RefusalReason.NOT_DICOM, "neither the DICM prefix nor a DICOM group at its start")
    tags = None if everything else list(_wanted(also))
    with quiet():
        try:
            ds = _inflated(content, tags) or _plain(content, tags)
        except ImageUnsupported:
            raise
        except (EOFError, zlib.error):
            raise refusal(RefusalReason.TRUNCATED, "the file ends within its header") from None
        except MemoryError:
            raise refusal(RefusalReason.TOO_LARGE, "the header needs more memory than there is") from None
        except Exception as error:  # noqa: BLE001  (a parser of hostile bytes raises anything; RecursionError too)
            raise refusal(RefusalReason.NOT_DICOM, f"the header cannot be parsed ({type(error).__name__})") from None
        _check_whole(ds, content)
    return ds


@lru_cache(maxsize=8)
def _wanted(also: tuple[str, ...]) -> tuple[BaseTag, ...]:
    return tuple(Tag(keyword) for keyword in (*_IMAGE_KEYWORDS.split(), *_HEADER_KEYWORDS.split(), *also))


def _looks_like_dicom(content: bytes) -> bool:
    """Return whether there is a DICM prefix (PS3.10 7.1) or, without one, a first element of group 0002 or 0008."""
    return content[128:132] == b"DICM" or (len(content) > 16 and content[:2] in {b"\x02\0", b"\x08\0"})


class _Looked(io.BytesIO):
    """A file in memory whose long values are looked at where they lie, and not copied."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._view = memoryview(content)

    def read(self, size: int | None = -1, /) -> Any:
        """Return bytes, or a view of them where there are many."""
        if size is None or size < _LONG:
            return super().read(size)
        start = self.tell()
        found = self._view[start : start + size]
        self.seek(start + len(found))
        return found


def _plain(content: bytes, tags: list[BaseTag] | None) -> Dataset:
    ds = pydicom.dcmread(_Looked(content), force=True, specific_tags=None if tags is None else list(tags))
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        if not little:
            ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    _copy_views(ds, keep=tags is not None and ds.file_meta.TransferSyntaxUID in LOOKED_AT)  # whole files are written again
    return ds


def _copy_views(ds: Dataset, *, keep: bool) -> None:
    """Make bytes of every long value, as pydicom expects them; but `keep` the pixels that are looked at in place."""
    for tag, element in ds._dict.items():  # noqa: SLF001  (the raw elements, before pydicom converts them)
        if isinstance(element, RawDataElement) and isinstance(element.value, memoryview):
            value = element.value if keep and tag == _PIXEL_DATA else bytes(element.value)
            ds._dict[tag] = element._replace(value=value)  # noqa: SLF001  (a named tuple's own method)


def _inflated(content: bytes, tags: list[BaseTag] | None) -> Dataset | None:
    """Parse a deflated file (PS3.5 A.5) with a bound on its size, which pydicom does not have; None for others."""
    if content[132:136] != b"\x02\0\0\0":  # (0002,0000), the length of the meta information, must come first
        return None
    end = 144 + int.from_bytes(content[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in content[144:end]:
        return None
    meta = pydicom.dcmread(io.BytesIO(content[:end])).file_meta if end <= len(content) else FileMetaDataset()
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(content[end:], MAX_FILE_BYTES)
    if inflater.unconsumed_tail:
        raise refusal(RefusalReason.TOO_LARGE, "the deflated file grows to more than 256 MiB")
    if not inflater.eof:
        raise refusal(RefusalReason.TRUNCATED, "the deflated data end early")
    ds = read_dataset(
        io.BytesIO(plain),
        is_implicit_VR=False,
        is_little_endian=True,
        specific_tags=None if tags is None else list[int](tags),
    )
    ds.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    return ds


def _check_whole(ds: Dataset, content: bytes) -> None:
    for element in ds._dict.values():  # noqa: SLF001  (the raw elements, before pydicom converts them)
        length = getattr(element, "length", None)
        value = getattr(element, "value", None)
        if length is None:
            continue
        if length != _UNDEFINED_LENGTH and isinstance(value, bytes | memoryview) and len(value) < length:
            raise refusal(RefusalReason.TRUNCATED, f"{element.tag} holds {len(value)} of {length} bytes")
        # pydicom takes a sequence of frames that ends within its delimiter (PS3.5 A.4).
        if length == _UNDEFINED_LENGTH and element.tag == _PIXEL_DATA and content.rfind(_DELIMITER) < 0:
            raise refusal(RefusalReason.TRUNCATED, "the file ends within its pixel data")
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & set(ds.dir()) and any(
        tag in content for tag in _PIXEL_TAGS
    ):
        raise refusal(RefusalReason.TRUNCATED, "the file ends within its pixel data")
