"""Read DICOM attributes as plain values, whatever a file holds in their place.

pydicom converts a value when it is touched, and raises many kinds of errors when it cannot. Here an attribute that the
pixels need and that cannot be read is refused as `wrong-vr`; one that is only welcome is absent.
"""

import math
from functools import lru_cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["identifier", "integer", "item", "number", "text", "word"]

_TEXT_LENGTH = 1024
"""Longer values are cut: nothing that we read is longer, and a hostile file may hold megabytes."""
_PADDING = " \0\r\n\t"
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"
"""What pydicom puts in the place of bytes that are no text in the file's character set."""


def _value(ds: Dataset, keyword: str, index: int = 0) -> Any:
    """Return one value of an attribute; None if absent, empty or not convertible."""
    tag = _tag_of(keyword)
    try:
        value = ds[tag].value if tag is not None and tag in ds else None
        if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__getitem__"):
            value = value[index] if len(value) > index else None
        elif index:
            return None
    except Exception:  # noqa: BLE001  (pydicom raises whatever a converter raises)
        return None
    return None if value == "" else value


@lru_cache(maxsize=256)
def _tag_of(keyword: str) -> BaseTag | None:
    """Return the tag of a keyword; asked for by it, a dataset looks it up anew each time."""
    tag = tag_for_keyword(keyword)
    return None if tag is None else Tag(tag)


def integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an attribute that decoding needs; `default` if it is absent.

    Raises `ImageUnsupported` (wrong-vr) if it is absent without default, or not a whole number.
    """
    value = _value(ds, keyword)
    if value is None and default is not None and (keyword not in ds or _is_empty(ds, keyword)):
        return default
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise refusal(RefusalReason.WRONG_VR, f"{keyword} is missing or not a whole number") from None


def _is_empty(ds: Dataset, keyword: str) -> bool:
    try:
        return bool(ds[keyword].is_empty)
    except Exception:  # noqa: BLE001  (a value that cannot be converted is not empty)
        return False


def number(ds: Dataset, keyword: str, index: int = 0) -> float | None:
    """Return one value of a numeric attribute, or None if it is absent, unreadable or not finite."""
    try:
        value = float(_value(ds, keyword, index))
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and abs(value) < 1e12 else None


def text(ds: Dataset, keyword: str) -> str:
    """Return the first value of a text attribute without padding, or "" if it is absent or unreadable."""
    value = _value(ds, keyword)
    return str(value)[:_TEXT_LENGTH].strip(_PADDING) if isinstance(value, str | int | float) else _named(value)


def _named(value: Any) -> str:
    """Return the text of pydicom's own value types (person names, dates), "" for anything else."""
    module = type(value).__module__
    return str(value)[:_TEXT_LENGTH].strip() if module.startswith("pydicom.valuerep") else ""


def word(ds: Dataset, keyword: str) -> str:
    """Return a defined term in capitals, or ""."""
    return text(ds, keyword).upper()


def identifier(ds: Dataset, keyword: str) -> str:
    """Return an identifier, all of it: two that differ must not become one.

    Backslashes, which divide values, are part of it. One that is no text, or text in another character set than the file
    says, is the hex of its bytes.
    """
    content = _raw(ds, keyword)
    first = text(ds, keyword)
    if first and _UNREADABLE not in first:
        return _joined(ds, keyword) or first
    return content.hex() if content.strip(b" \0") else first


def _raw(ds: Dataset, keyword: str) -> bytes:
    """Return the bytes of an attribute, b"" if it is absent or was read before."""
    try:
        content = getattr(ds.get_item(keyword), "value", None)
    except Exception:  # noqa: BLE001  (as in _value)
        return b""
    return content if isinstance(content, bytes) else b""


def _joined(ds: Dataset, keyword: str) -> str:
    """Return the values of a multi-valued attribute as they stand in the file, "" for a single one."""
    value = ds[keyword].value
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return ""
    return "\\".join(str(part) for part in value)[:_TEXT_LENGTH].strip(_PADDING)


def item(ds: Dataset, keyword: str) -> Dataset | None:
    """Return the first item of a sequence, or None."""
    value = _value(ds, keyword)
    return value if isinstance(value, Dataset) else None
