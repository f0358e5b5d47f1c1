"""Burned-in annotation: does a picture name its patient? Tags as hints (PS3.3 C.7.6.1), and optical character recognition.

Markers that belong into a radiograph (sides, views, positions) are no reason to refuse it. What was read is judged here
and forgotten: neither logs nor the catalogue get a letter of it, only how many numbers, dates and words there were.
"""

import io
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from silo_app.config import ImagingSettings
from silo_app.errors import NotReady
from silo_app.imaging.attributes import word
from silo_app.imaging.identifying import kind_of
from silo_app.imaging.radiograph import radiograph_of

__all__ = ["SIDE", "TESSERACT", "Reading", "check_burned_in", "check_reader", "hints", "read_text"]

TESSERACT = "tesseract"
SECONDS = 20
SIDE = 1600
"""Pixels of the longest side that is read: letters of 1 % of a film's height are 16 pixels high, what Tesseract needs."""

_CONFIDENCE = 60.0
"""Tesseract's own, of 100; below it, noise of bones and tissue is read as letters."""
_SURROUNDINGS = 0.03
"""Of the picture's height: a little more than printed letters are high."""
_FAINT = 20.0
"""Of 255: contrast that tissue and noise have too."""
_SPARSE = "11"  # page segmentation: find as much text as possible, in no order


@dataclass(frozen=True, slots=True)
class Reading:
    """What kinds of identifying text were found, never the text."""

    kinds: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        """Return "1 date, 2 words"."""
        return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in self.kinds)


def check_burned_in(ds: Dataset, *, ocr: bool) -> str:
    """Return why a picture seems to name its patient, "" if nothing says so; a reading that fails is a reason."""
    named = hints(ds)
    if named or not ocr:
        return named
    pixels = radiograph_of(ds, max_side=SIDE).pixels
    try:
        found = read_text(pixels)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the text recognition did not end well ({type(error).__name__})"
    return f"text in the picture that may identify: {found}" if found.kinds else ""


def hints(ds: Dataset) -> str:
    """Return what the header itself says of text or of a face in the picture.

    Conversion Type says nothing here: digitized film and converted images have it, and captures are refused before.
    """
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if word(ds, keyword) == "YES":
            return f"{keyword} is YES"
    return "ImageType names a screenshot" if "SCREEN" in _words_of(ds, "ImageType") else ""


def _words_of(ds: Dataset, keyword: str) -> str:
    """Return all values of an attribute in capitals, as one text."""
    try:
        return str(ds.get(keyword) or "").upper()
    except Exception:  # noqa: BLE001  (pydicom raises whatever a converter raises)
        return ""


def read_text(pixels: NDArray[np.float32]) -> Reading:
    """Read a picture, float32 (H, W) in [0, 1], and its inverse, and return the kinds of what may identify.

    Raises `OSError` or `subprocess.SubprocessError` if Tesseract is missing, fails or takes too long.
    """
    words = {text for ink in (1, -1) for text in _words(_printed(pixels, ink))}
    return Reading(tuple(sorted(Counter(filter(None, map(kind_of, words))).items())))


def _printed(pixels: NDArray[np.float32], ink: int) -> NDArray[np.uint8]:
    """Return what stands out from its surroundings, brighter (`ink` 1) or darker (-1), as black on white.

    Tesseract divides a picture by one threshold into ink and paper: text on tissue is lost to it.
    """
    from PIL import Image, ImageFilter

    gray = np.rint(pixels * 255).astype(np.uint8)
    around = Image.fromarray(gray).filter(ImageFilter.BoxBlur(max(2.0, len(gray) * _SURROUNDINGS)))
    contrast = ink * (gray.astype(np.float32) - np.asarray(around, np.float32))
    black: NDArray[np.uint8] = np.clip(255 - 3 * np.clip(contrast - _FAINT, 0, None), 0, 255).astype(np.uint8)
    return black


def _words(gray: NDArray[np.uint8]) -> list[str]:
    """Return the words that Tesseract is sure of."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG", compress_level=1)
    done = subprocess.run(
        [shutil.which(TESSERACT) or TESSERACT, "stdin", "stdout", "--psm", _SPARSE, "-l", "eng", "tsv"],
        input=file.getvalue(),
        capture_output=True,
        timeout=SECONDS,
        check=True,
        env=os.environ | {"OMP_THREAD_LIMIT": "1"},  # the silo reads one file a core already
    )
    rows = (line.split("\t") for line in done.stdout.decode(errors="replace").splitlines()[1:])
    return [row[11] for row in rows if len(row) == 12 and float(row[10]) >= _CONFIDENCE and row[11].strip()]


def check_reader(settings: ImagingSettings) -> None:
    """Raise `NotReady` if pictures are to be read and Tesseract is not there: nothing is taken unread."""
    if settings.ocr and settings.burned_in != "off" and shutil.which(TESSERACT) is None:
        raise NotReady(
            "pictures are to be read for text (imaging.ocr), and there is no tesseract on the PATH",
            remedy="Install it (Debian: apt install tesseract-ocr), or set `ocr: false` under `imaging` in local/silo.yaml.",
        )
