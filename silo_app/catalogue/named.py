"""What somebody in the hospital names by a case id or a UID, found in the catalogue; no error repeats a UID."""

import re

from silo_app.cases import CaseId, View
from silo_app.catalogue.catalogue import Catalogue
from silo_app.catalogue.pseudonyms import SiloKey
from silo_app.errors import CaseUnknown

__all__ = ["case_digits", "case_named", "views_of_uid"]

_CASE = re.compile(r"[0-9a-f]{8,32}")
_REMEDY = "Give the case id as `silo search --format json` has it; other silos' cases are known there only."


def case_digits(text: str) -> str:
    """Return the digits of a case id, 8 to 32. Raises `CaseUnknown` for what cannot be the beginning of one."""
    digits = text.strip().lower()
    if not _CASE.fullmatch(digits):
        raise CaseUnknown("a case id has 32 hexadecimal digits; at least 8 are needed", remedy=_REMEDY)
    return digits


def case_named(catalogue: Catalogue, text: str) -> CaseId:
    """Return the case whose id begins so (8 digits at least). Raises `CaseUnknown` if there is none, or more than one."""
    start = case_digits(text)
    found = catalogue.cases_like(start)
    if len(found) != 1:
        what = "two cases begin" if found else "no case of this silo begins"
        raise CaseUnknown(f"{what} with {start}", remedy=_REMEDY)
    return found[0]


def views_of_uid(catalogue: Catalogue, key: SiloKey, uid: str) -> list[View]:
    """Return the view with this SOP Instance UID, or the views of the study with this Study Instance UID.

    Raises `CaseUnknown` if the silo holds neither, or two patients share the study's UID.
    """
    uid = uid.strip().strip("\0")
    views = catalogue.views_keyed(instance=key.name("instance", uid), study=key.name("study-uid", uid))
    if not views:
        raise CaseUnknown(
            "this silo holds no image and no study with this UID",
            remedy="Give a SOP Instance UID or a Study Instance UID of an image that was ingested, or the file itself.",
        )
    if len({view.case for view in views}) > 1:
        raise CaseUnknown(
            "two patients' studies have this UID", remedy="Give the SOP Instance UID of one image, or its case id."
        )
    return views
