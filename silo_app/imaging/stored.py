"""Pixel Data -> stored values: decoded after the declared size was compared with what is there (PS3.5 8 and A.4)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from silo_app.errors import ImageUnsupported
from silo_app.imaging.attributes import integer, text
from silo_app.imaging.codestream import check_codestream
from silo_app.imaging.grayscale import StoredFormat
from silo_app.imaging.parse import LOOKED_AT
from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["StoredPixels", "stored_pixels"]

JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"

_WORDS = (*LOOKED_AT, ExplicitVRBigEndian, RLELossless)

_PREFERRED = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")
"""Which decoder of a transfer syntax is used, and no other after it: GDCM ends the process (an uncaught exception of
C++) on damaged JPEG 2000 and JPEG-LS, where the others raise, and it is the slower one; it is left for JPEG lossless."""


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """The stored values less the smallest possible one."""

    index: NDArray[np.uint16]
    """(rows, columns)."""
    largest: int | None = None
    """The largest of them, where it had to be looked for; else None."""


def stored_pixels(ds: Dataset, stored: StoredFormat) -> StoredPixels:
    """Return the pixels of a dataset.

    Raises `ImageUnsupported` (truncated, bad-geometry, unsupported-transfer-syntax, decode-failed, too-large).
    """
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    if text(ds.file_meta, "TransferSyntaxUID") in LOOKED_AT and stored.allocated == 16:
        content = ds.get_item(
            Tag("PixelData"), keep_deferred=True
        ).value  # as it lies in the file, whatever its VR would make of it
        if not isinstance(content, bytes | memoryview) or not content:
            raise refusal(RefusalReason.NO_PIXELS, "Pixel Data is empty")
        _check_length(content, rows * columns * 2)
        native = np.frombuffer(content, "<u2", rows * columns).reshape(rows, columns)
        return _unpacked(native, stored, shift=stored.high_bit - (stored.bits - 1))
    decoded = _decode(ds, rows, columns, stored)
    if decoded.shape != (rows, columns) or decoded.dtype.kind not in "iu":
        raise refusal(RefusalReason.BAD_GEOMETRY, f"decoded to shape {decoded.shape}, not to {rows} x {columns}")
    # Codecs hand out numbers; RLE keeps whole words, as they lie in memory (PS3.5 annex G).
    numbers = UID(text(ds.file_meta, "TransferSyntaxUID")) not in _WORDS
    return _unpacked(decoded, stored, shift=0 if numbers else stored.high_bit - (stored.bits - 1))


def _decode(ds: Dataset, rows: int, columns: int, stored: StoredFormat) -> NDArray[np.generic]:
    syntax = UID(text(ds.file_meta, "TransferSyntaxUID"))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise refusal(RefusalReason.UNSUPPORTED_TRANSFER_SYNTAX, f"transfer syntax {_name(syntax)}") from None
    if not decoder.is_available:
        raise refusal(RefusalReason.UNSUPPORTED_TRANSFER_SYNTAX, f"no decoder installed for {_name(syntax)}")
    try:
        if syntax.is_encapsulated:
            check_codestream(ds.PixelData, rows, columns)
        else:
            _check_length(ds.PixelData, rows * columns * stored.allocated // 8)
        plugin = next((name for name in _PREFERRED if name in decoder.available_plugins), "")
        options: dict[str, Any] = {"correct_unused_bits": False}  # `_unpacked` does it, with the high bit in mind
        decoded: NDArray[np.generic] = decoder.as_array(ds, index=0, raw=True, decoding_plugin=plugin, **options)[0]
    except (ImageUnsupported, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError:
        raise refusal(RefusalReason.TOO_LARGE, "decoding needs more memory than there is") from None
    except BaseException as error:  # noqa: BLE001  (anything, for hostile bytes; a panic in Rust is no Exception)
        if syntax == JPEG_EXTENDED and stored.bits > 8:
            raise refusal(
                RefusalReason.UNSUPPORTED_TRANSFER_SYNTAX, "JPEG Extended of 12 bits has no freely licensed decoder"
            ) from None
        raise refusal(RefusalReason.DECODE_FAILED, f"{_name(syntax)} ({type(error).__name__})") from None
    return decoded


def _check_length(content: bytes | memoryview, expected: int) -> None:
    if len(content) < expected:
        raise refusal(RefusalReason.TRUNCATED, f"{len(content)} bytes of pixels where {expected} are declared")


def _name(syntax: UID) -> str:
    """Return the standard's name of a transfer syntax; a private or broken one is not quoted."""
    return syntax.name if not syntax.is_private and syntax.name != syntax else "unknown"


def _unpacked(decoded: NDArray[Any], stored: StoredFormat, *, shift: int) -> StoredPixels:
    """Keep the stored bits only (old files have overlays in the others), sign-extend, and start at 0."""
    if not (shift or stored.signed) and decoded.dtype == np.uint16 and (largest := int(decoded.max())) < 1 << stored.bits:
        return StoredPixels(decoded, largest)  # most files: nothing to do, so nothing is copied
    raw = decoded.astype(np.int32) >> shift if shift else decoded
    bits = raw.astype(np.uint16) & np.uint16((1 << stored.bits) - 1)
    # Two's complement: flipping the sign bit maps the lowest value to 0 and keeps the order.
    return StoredPixels(bits ^ np.uint16(1 << (stored.bits - 1)) if stored.signed else bits)
