"""Why a file is refused: a closed list of words, each with what can be done about it."""

from enum import StrEnum

from silo_app.errors import ImageUnsupported

__all__ = ["RefusalReason", "refusal"]


class RefusalReason(StrEnum):
    """Why a file does not become a view; the values are stored in the catalogue and printed, so they never change."""

    NOT_DICOM = "not-dicom"
    TRUNCATED = "truncated"
    NOT_AN_X_RAY = "not-an-x-ray"
    FOR_PROCESSING = "for-processing"
    SECONDARY_CAPTURE = "secondary-capture"
    COLOR = "colour"
    MULTI_FRAME = "multi-frame"
    NO_PIXELS = "no-pixels"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    BAD_GEOMETRY = "bad-geometry"
    WRONG_VR = "wrong-vr"
    TOO_LARGE = "too-large"
    BLANK = "blank"
    DECODE_FAILED = "decode-failed"
    UNREADABLE = "unreadable"
    DUPLICATE_INSTANCE = "duplicate-instance"
    NOT_RETRIEVED = "not-retrieved"
    BURNED_IN = "burned-in-annotation"
    RECALLED = "recalled"
    DICOMDIR = "dicomdir"


_FETCH_AGAIN = "Fetch the image again from the archive."

_REMEDIES = {
    RefusalReason.NOT_DICOM: "Give a DICOM Part 10 file; leave other files out of the source.",
    RefusalReason.TRUNCATED: _FETCH_AGAIN,
    RefusalReason.NOT_AN_X_RAY: "Give a Computed Radiography (CR), Digital X-Ray (DX) or Radiography (RG) image.",
    RefusalReason.FOR_PROCESSING: "Ask the archive for the image that is stored for presentation.",
    RefusalReason.SECONDARY_CAPTURE: "Ask the archive for the original image, not a capture of a screen or of paper.",
    RefusalReason.COLOR: "Give the original grayscale image.",
    RefusalReason.MULTI_FRAME: "Give single images; cine and tomosynthesis are not used.",
    RefusalReason.NO_PIXELS: _FETCH_AGAIN,
    RefusalReason.UNSUPPORTED_TRANSFER_SYNTAX: "Ask the archive for an uncompressed or JPEG 2000 copy.",
    RefusalReason.BAD_GEOMETRY: _FETCH_AGAIN,
    RefusalReason.WRONG_VR: _FETCH_AGAIN,
    RefusalReason.TOO_LARGE: "No radiograph is as large as this file says; " + _FETCH_AGAIN.lower(),
    RefusalReason.BLANK: "There is nothing to see in it; " + _FETCH_AGAIN.lower(),
    RefusalReason.DECODE_FAILED: _FETCH_AGAIN,
    RefusalReason.UNREADABLE: "Let the account that runs Siloscope read the file.",
    RefusalReason.BURNED_IN: "Have the text masked in the archive; or look at the picture and set `imaging` in silo.yaml.",
    RefusalReason.DUPLICATE_INSTANCE: "Keep one file for each image (SOP Instance UID) in the source.",
    RefusalReason.DICOMDIR: "Nothing is lost: the files that it lists are read by themselves.",
    RefusalReason.RECALLED: "The hospital took it out; `silo catalogue restore` lets it in again.",
    RefusalReason.NOT_RETRIEVED: "The next ingest asks for it again; if it stays so, ask the archive's administrator.",
}


def refusal(reason: RefusalReason, problem: str, *, where: str = "") -> ImageUnsupported:
    """Return the error for `reason`; `problem` holds numbers and words of the standard, never an identifier."""
    return ImageUnsupported(problem, reason=reason.value, remedy=_REMEDIES[reason], where=where)
