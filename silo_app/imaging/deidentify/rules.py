"""What happens to one attribute: PS3.15 Table E.1-1 (2026c) from dicom-anonymizer, and what we add where it keeps text.

dicom-anonymizer applies its table to the top level of a dataset only, and names UIDs at random: we take its table and its
dummy values, walk into every sequence ourselves, and name by the silo's key. What no rule understands is removed.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any

from dicomanonymizer.simpledicomanonymizer import (
    delete,
    delete_or_empty_or_replace_UID,
    initialize_actions,
    replace_UID,
)
from pydicom.datadict import dictionary_has_tag
from pydicom.dataelem import DataElement
from pydicom.tag import BaseTag, Tag

__all__ = ["TABLE", "Action", "Rule", "rule_for"]

TABLE = "dicomfields_2026c"

Rule = Callable[[Any, tuple[int, int]], None]


class Action(StrEnum):
    """What is done with an attribute."""

    REMOVED = "removed"
    EMPTIED = "emptied"
    REPLACED = "replaced"
    NAMED = "named by key"
    ENTERED = "entered"
    KEPT = "kept"


_DEVICE = {Tag("Manufacturer"), Tag("ManufacturerModelName"), Tag("SoftwareVersions")}
_SERIAL = re.compile(r"\d{5}")
_CODES = {Tag("CodeValue"), Tag("CodingSchemeDesignator"), Tag("CodingSchemeVersion"), Tag("CodeMeaning")}
"""Text outside the table that image users need; a privacy officer sees its shape by `silo deid-check`."""
_KEPT_BYTES = {Tag("PixelData"), Tag("LUTData")}
_NUMBERS = {"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
_CODE = re.compile(r"[A-Z0-9 _]{0,16}")  # PS3.5 6.2: the repertoire of CS
_CHARACTER_SET = Tag("SpecificCharacterSet")  # its terms have dots and hyphens: ISO_IR 100, ISO 2022 IR 87
_CHARACTER_SETS = re.compile(r"(ISO[_ ](IR|2022 IR) \d{1,3}|GB18030|GBK)?")


@cache
def _table() -> dict[tuple[int, ...], Rule]:
    return initialize_actions(TABLE)  # type: ignore[no-any-return]


@cache
def rule_for(tag: BaseTag) -> Rule | None:
    """Return the table's rule, None where it has none; curves and overlays (50xx, 60xx) go as a whole."""
    if tag.group & 0xFF00 in {0x5000, 0x6000}:
        return delete  # type: ignore[no-any-return]
    return _table().get((tag.group, tag.element))


def action_for(element: DataElement) -> tuple[Action, Rule | None]:
    """Return what is done with an attribute, and the table's rule where that rule does it."""
    tag, rule = element.tag, rule_for(element.tag)
    if tag.is_private or tag.element == 0 or not dictionary_has_tag(tag) or rule is delete:
        return Action.REMOVED, None
    if element.VR == "UI" or rule is replace_UID or tag == Tag("PatientID"):
        return Action.NAMED, None
    if element.VR == "SQ":
        return (Action.ENTERED if rule in {None, delete_or_empty_or_replace_UID} else Action.EMPTIED), None
    if rule is not None:
        return Action.REPLACED, rule
    return (Action.KEPT if _is_harmless(element) else Action.REMOVED), None


def _is_harmless(element: DataElement) -> bool:
    """Return whether an attribute that the table leaves alone is of a kind that holds no free text, date or bytes."""
    if element.VR == "CS":
        values = element.value if element.VM > 1 else [element.value]
        pattern = _CHARACTER_SETS if element.tag == _CHARACTER_SET else _CODE
        return all(pattern.fullmatch(str(value or "")) for value in values)
    if element.tag in _DEVICE:
        return not _SERIAL.search(str(element.value))
    return element.VR in _NUMBERS or element.tag in _CODES | _KEPT_BYTES
