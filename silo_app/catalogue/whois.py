"""From a case back to its study, inside the silo that holds it: audited before it is answered."""

import re
from dataclasses import dataclass

from silo_app.audit.log import AuditLog
from silo_app.cases import CaseId
from silo_app.catalogue.catalogue import Catalogue
from silo_app.catalogue.pseudonyms import SiloKey
from silo_app.catalogue.vault import StudyIdentity, Vault
from silo_app.config import SiloHome
from silo_app.errors import CaseUnknown

__all__ = ["Whois", "look_up"]

_CASE = re.compile(r"[0-9a-f]{8,32}")
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Whois:
    """A case, and by what the hospital's own archive finds it."""

    case: CaseId
    study: StudyIdentity
    files: tuple[str, ...]
    """The files that its images came from: "source: path"."""


def look_up(home: SiloHome, case: str, *, user: str, reason: str) -> Whois:
    """Return the study of a case of this silo. Raises `CaseUnknown`; `CatalogueDamaged` if the key is another one.

    Who looked up which case, and why, is on disk before anything is returned.
    """
    start = case.strip().lower()
    if not _CASE.fullmatch(start):
        raise CaseUnknown("a case id has 32 hexadecimal digits; at least 8 are needed", remedy=_REMEDY)
    with Catalogue.open(home.catalogue, vault=Vault(SiloKey.load(home.key))) as catalogue:
        found = catalogue.cases_like(start)
        if len(found) != 1:
            what = "two cases begin" if found else "no case of this silo begins"
            raise CaseUnknown(f"{what} with {start}", remedy=_REMEDY)
        study = catalogue.identity(found[0])
        if study is None:
            raise CaseUnknown(
                "no image of this case is held any more, so that its study is forgotten",
                where=start,
                remedy="If it was ingested by an earlier version, run `silo ingest` and ask again.",
            )
        audit = AuditLog(home.audit)
        audit.append("whois", {"case": found[0], "user": user, "reason": reason[:_LONGEST_REASON]})
        audit.close()
        return Whois(case=found[0], study=study, files=tuple(catalogue.files_of(found[0])))


_REMEDY = "Give the case id as `silo search --format json` has it; other silos' cases are known there only."
