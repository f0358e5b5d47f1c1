"""The grayscale pipeline of DICOM as one curve: what brightness each possible stored value is shown with.

    stored value -> Modality LUT (PS3.3 C.11.1) -> VOI LUT or window (C.11.2) -> polarity (C.7.6.3.1.2, C.11.6)

All of it is a function of one whole number of at most 16 bits, so it is computed once for the 65,536 values there can
be, exactly, and not for every pixel.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from silo_app.imaging.attributes import integer, item, number, text, word
from silo_app.imaging.occurring import ALL, FEW, Occurring
from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["StoredFormat", "display_curve", "inverted", "padding_values", "stored_format"]


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """How one pixel is stored (PS3.5 section 8.1.1)."""

    bits: int
    """Bits Stored, 1 to 16."""
    high_bit: int
    signed: bool
    allocated: int
    """Bits Allocated, 8 or 16."""

    @property
    def lowest(self) -> int:
        """The smallest value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def values(self) -> NDArray[np.int32]:
        """Every value that can be stored, ascending, int32 (2 ** bits,)."""
        return np.arange(self.lowest, self.lowest + (1 << self.bits), dtype=np.int32)


def stored_format(ds: Dataset) -> StoredFormat:
    """Read the pixel description. Raises `ImageUnsupported` (bad-geometry, wrong-vr) for an impossible one."""
    allocated = integer(ds, "BitsAllocated")
    bits = integer(ds, "BitsStored", allocated)
    high_bit = integer(ds, "HighBit", bits - 1)
    signed = integer(ds, "PixelRepresentation", 0)
    if allocated not in {8, 16} or not 1 <= bits <= allocated or not bits - 1 <= high_bit < allocated:
        raise refusal(RefusalReason.BAD_GEOMETRY, f"{bits} bits stored, {allocated} allocated, high bit {high_bit}")
    if signed not in {0, 1}:
        raise refusal(RefusalReason.BAD_GEOMETRY, f"Pixel Representation {signed} is not defined")
    return StoredFormat(bits=bits, high_bit=high_bit, signed=bool(signed), allocated=allocated)


def display_curve(ds: Dataset, stored: StoredFormat, occurring: Occurring) -> NDArray[np.float32]:
    """Return brightness in [0, 1] for each stored value, float32 (2 ** bits,); bright is dense.

    A window that would show all values that occur alike is not used, and without a usable one the range of their
    robust percentiles is shown. Raises `ImageUnsupported` (blank) where fewer than two values occur.
    """
    with np.errstate(all="ignore"):
        values = _modality(ds, stored)
        shown = _voi(ds, values)
        if shown is None or not np.isfinite(shown).all() or not _tells_apart(shown, occurring):
            shown = _full_range(values, occurring.counts(ALL))
    curve = np.clip(shown, 0, 1)
    return (1 - curve if inverted(ds) else curve).astype(np.float32)


def _tells_apart(shown: NDArray[np.float64], occurring: Occurring) -> bool:
    """Return whether values that occur differ by a grey level; asks all rows only if a few do not show it."""
    return any(np.ptp(shown[occurring.counts(rows) > 0]) >= 1 / 255 for rows in (FEW, ALL))


def inverted(ds: Dataset) -> bool:
    """Return whether the smallest value is shown white: MONOCHROME1 or Presentation LUT Shape INVERSE, but only once.

    PS3.3 C.8.11.3.1.2 has both in every such DX image, where they say the same thing once.
    """
    return word(ds, "PhotometricInterpretation") == "MONOCHROME1" or word(ds, "PresentationLUTShape") == "INVERSE"


def padding_values(ds: Dataset, stored: StoredFormat) -> NDArray[np.bool_] | None:
    """Return which stored values mean "no pixel here" (PS3.3 C.7.5.1.1.2), bool (2 ** bits,), or None."""
    first = number(ds, "PixelPaddingValue")
    if first is None:
        return None
    limit = number(ds, "PixelPaddingRangeLimit")
    low, high = sorted((_wrapped(first, stored), _wrapped(first if limit is None else limit, stored)))
    padding: NDArray[np.bool_] = (stored.values >= low) & (stored.values <= high)
    return padding if padding.any() and not padding.all() else None


def _wrapped(value: float, stored: StoredFormat) -> int:
    """Return a padding value as it is stored; writers confuse US and SS, so -2000 may read 63536 and the reverse."""
    whole = int(value)
    if stored.signed and whole > 0x7FFF:
        return whole - 0x10000
    return whole + 0x10000 if not stored.signed and whole < 0 else whole


def _modality(ds: Dataset, stored: StoredFormat) -> NDArray[np.float64]:
    sequence = item(ds, "ModalityLUTSequence")
    table = None if sequence is None else _table(sequence, ds, signed=stored.signed)
    if table is not None:
        return table.apply(stored.values.astype(np.float64))
    slope = number(ds, "RescaleSlope")
    intercept = number(ds, "RescaleIntercept") or 0.0
    return stored.values.astype(np.float64) * (slope or 1.0) + intercept


def _voi(ds: Dataset, values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return values through the first VOI LUT, else through the first window, in [0, 1]; None without a usable one."""
    sequence = item(ds, "VOILUTSequence")
    table = None if sequence is None else _table(sequence, ds, signed=bool(values.min() < 0))
    if table is not None:
        return table.apply(values) / table.top
    center, width = number(ds, "WindowCenter"), number(ds, "WindowWidth")
    if center is None or width is None:
        return None
    return _window(values, center, width, word(ds, "VOILUTFunction") or "LINEAR")


def _window(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64] | None:
    """Apply one of the three window functions of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if width < 1 if function == "LINEAR" else width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function != "LINEAR":
        return None
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _full_range(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Stretch the percentiles 0.5 and 99.5 of the image's values over [0, 1]; all of their range if those coincide."""
    seen = np.flatnonzero(counts)
    order = seen[np.argsort(values[seen], kind="stable")]
    ascending, pixels = values[order], np.cumsum(counts[order])
    # In whole numbers, and mirrored: the inverted image must give the same two values.
    low = float(ascending[np.searchsorted(pixels * 200 >= pixels[-1], v=True)])
    high = float(ascending[np.searchsorted(pixels * 200 > 199 * pixels[-1], v=True)])
    if high <= low:
        low, high = float(ascending[0]), float(ascending[-1])
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


@dataclass(frozen=True, slots=True)
class _Table:
    """A lookup table (PS3.3 C.11.1.1 and C.11.2.1.1): entries from the value `first` on."""

    first: int
    entries: NDArray[np.float64]
    top: float
    """The largest value that an entry can have."""

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        found: NDArray[np.float64] = self.entries[index]
        return found


def _table(sequence: Dataset, ds: Dataset, *, signed: bool) -> _Table | None:
    """Read the LUT of a sequence item, or None if it cannot be one."""
    try:
        count, first, bits = (int(number) for number in sequence.LUTDescriptor)
        data = sequence.LUTData
    except Exception:  # noqa: BLE001  (absent, or whatever a converter of pydicom raises)
        return None
    count = count or 0x10000  # PS3.3 C.11.1.1: 0 means 65,536 entries
    entries = _entries(data, count, little=_is_little(ds))
    if entries is None or len(entries) < 2 or not 1 <= bits <= 16:
        return None
    first = first - 0x10000 if signed and first > 0x7FFF else first  # read as US where SS was meant
    return _Table(first=first, entries=entries, top=float(max((1 << bits) - 1, entries.max())))


def _entries(data: object, count: int, *, little: bool) -> NDArray[np.float64] | None:
    """Return a table's entries float64 (count,); stored as OW bytes (two an entry, or one), or as US values."""
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        kind = ("<u2" if little else ">u2") if wide else "u1"
        read = np.frombuffer(data[: count * 2 if wide else count], dtype=kind)
    else:
        try:
            read = np.atleast_1d(np.asarray(data, dtype=np.float64))[:count]
        except (TypeError, ValueError):
            return None
    return read.astype(np.float64) if len(read) == count and np.isfinite(read).all() else None


def _is_little(ds: Dataset) -> bool:
    return text(ds.file_meta, "TransferSyntaxUID") != "1.2.840.10008.1.2.2"
