"""Which datasets a silo takes: X-ray projections for presentation, judged by what the standard requires of them.

An attribute that the standard makes optional, or that an anonymizer removes, is never required: a study that lacks it
is a study all the same.
"""

from pydicom.dataset import Dataset

from silo_app.imaging.attributes import integer, text, word
from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["check_acceptable"]

CR = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage (PS3.10, section 8.6)."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and the multi-frame ones, .7.1 to .7.4
MODALITIES = ("CR", "DX", "RG")  # computed, digital and film radiography; IO, PX and MG look at other anatomy

_OTHER_MODALITIES = {"BI", "CT", "DOC", "ECG", "ES", "GM", "IO", "IVOCT", "IVUS", "KO", "LS", "MG", "MR", "NM", "OCT", "OP"}
_OTHER_MODALITIES |= {"OT", "PR", "PT", "PX", "REG", "RF", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SEG", "SM", "SR"}
_OTHER_MODALITIES |= {"US", "XA", "XC"}
"""Defined terms that a refusal may quote; a hospital may have put anything else there."""

MIN_SIDE = 16
MAX_SIDE = 20_000
MAX_PIXELS = 64_000_000
"""Four times the largest flat detector; stitched images of the whole leg stay below half of it."""


def check_acceptable(ds: Dataset) -> None:
    """Raise `ImageUnsupported` unless `ds` describes one grayscale X-ray image; looks at no pixel."""
    _check_kind(ds)
    _check_samples(ds)
    if "PixelData" not in ds:
        raise refusal(RefusalReason.NO_PIXELS, "the file has no Pixel Data")
    _check_size(ds)


def _check_kind(ds: Dataset) -> None:
    sop_class = text(ds, "SOPClassUID") or text(ds.file_meta, "MediaStorageSOPClassUID")
    modality = word(ds, "Modality")
    if sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + "."):
        raise refusal(RefusalReason.SECONDARY_CAPTURE, "the SOP class is Secondary Capture")
    if sop_class == DX_FOR_PROCESSING or word(ds, "PresentationIntentType") == "FOR PROCESSING":
        raise refusal(RefusalReason.FOR_PROCESSING, "the image is for processing, not for presentation")
    if sop_class == MEDIA_DIRECTORY:
        raise refusal(RefusalReason.DICOMDIR, "a directory of files (DICOMDIR) and no image")
    if sop_class not in {"", CR, DX_FOR_PRESENTATION}:
        raise refusal(RefusalReason.NOT_AN_X_RAY, "the SOP class is neither CR nor DX image storage")
    if modality not in MODALITIES and (modality or not sop_class):
        known = modality if modality in _OTHER_MODALITIES else "(none of the usual)" if modality else "(none)"
        raise refusal(RefusalReason.NOT_AN_X_RAY, f"modality {known} is not one of {', '.join(MODALITIES)}")
    if not sop_class and word(ds, "ConversionType"):
        raise refusal(RefusalReason.SECONDARY_CAPTURE, "Conversion Type marks a secondary capture")


def _check_samples(ds: Dataset) -> None:
    samples = integer(ds, "SamplesPerPixel", 1)
    photometric = word(ds, "PhotometricInterpretation")
    if samples != 1 or photometric not in {"MONOCHROME1", "MONOCHROME2"}:
        if not photometric:
            raise refusal(RefusalReason.BAD_GEOMETRY, "Photometric Interpretation is missing")
        raise refusal(RefusalReason.COLOR, f"{samples} samples a pixel, and not MONOCHROME1 or MONOCHROME2")
    frames = integer(ds, "NumberOfFrames", 1)
    if frames != 1:
        raise refusal(RefusalReason.MULTI_FRAME, f"{frames} frames in one file")


def _check_size(ds: Dataset) -> None:
    rows, columns = integer(ds, "Rows"), integer(ds, "Columns")
    if min(rows, columns) < MIN_SIDE:
        raise refusal(RefusalReason.BAD_GEOMETRY, f"{rows} rows and {columns} columns; at least {MIN_SIDE} are needed")
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise refusal(RefusalReason.TOO_LARGE, f"{rows} rows and {columns} columns; the limit is 64 megapixels")
