"""Which words in a picture may identify a patient: a rule that people can read, and argue with.

A date, a number of four digits or more, or a word of four letters or more that is not on the list of what radiographers
put on a film. Shorter names go unnoticed alone, and a few markers of one hospital may be taken for names: the figures
are in docs/explanation-deidentification.md.
"""

import re
from difflib import get_close_matches

__all__ = ["MARKERS", "kind_of"]

_MARKERS = """
LEFT RIGHT LATERAL FRONTAL OBLIQUE ANTERIOR POSTERIOR CHEST THORAX LUNG RIBS ABDOMEN SPINE KNEE ANKLE HAND
FOOT SUPINE PRONE ERECT UPRIGHT STANDING SITTING SEMI SEMIERECT SEMIUPRIGHT SUPIN DECUB DECUBITUS RECUMBENT
LYING SEATED PORTABLE PORT MOBILE BEDSIDE WARD TROLLEY STRETCHER WHEELCHAIR CROSS TABLE GRID FILM CASSETTE
DETECTOR XRAY INSP EXPIR INSPIRATION EXPIRATION INSPIRATORY EXPIRATORY FULL LATE EARLY DELAYED POST AFTER
BEFORE VIEW SIDE WEIGHTBEARING WEIGHT BEARING FLEXION EXTENSION SINGLE APPROX DEGREES MARKER LLAT RLAT TOTAL
"""
MARKERS = frozenset(_MARKERS.split())
"""Words of four letters or more that belong into a radiograph; shorter ones (L, R, AP, PA, LAT, ICU) are never judged."""

_DATE = re.compile(
    r"\d{1,4}[./-]\d{1,2}[./-]\d{2,4}"
    r"|\d{1,2}[.\s/-]?(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)[A-Z]*[.\s/-]?\d{2,4}"
)
_TIME = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")
_VOWELS = set("AEIOUYÄÖÜÉÈ")
_DIGITS = 4
_LIKE_A_MARKER = 0.8
"""Similarity from which a word is a marker that was misread."""


def kind_of(text: str) -> str:
    """Return "date", "time", "number" or "word" for a text that may identify, "" for one that does not."""
    plain = text.strip().upper()
    if _DATE.search(plain):
        return "date"
    if _TIME.search(plain):
        return "time"
    if sum(letter.isdigit() for letter in plain) >= _DIGITS:
        return "number"
    words = re.findall(r"[^\W\d_]{4,}", plain)
    return "word" if any(_is_name(word) for word in words) else ""


def _is_name(word: str) -> bool:
    """Return whether a word could be a name: not a marker, and not the consonants that noise is read as."""
    if get_close_matches(word, MARKERS, n=1, cutoff=_LIKE_A_MARKER):
        return False
    return bool(set(word) & _VOWELS) and len(set(word)) > 2
