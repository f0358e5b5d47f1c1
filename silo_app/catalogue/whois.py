"""From a case back to its study, inside the silo that holds it: audited before it is answered."""

from dataclasses import dataclass

from silo_app.audit.log import AuditLog
from silo_app.cases import CaseId
from silo_app.catalogue.catalogue import Catalogue
from silo_app.catalogue.named import case_digits, case_named
from silo_app.catalogue.pseudonyms import SiloKey
from silo_app.catalogue.vault import StudyIdentity, Vault
from silo_app.config import SiloHome
from silo_app.errors import CaseUnknown

__all__ = ["Whois", "look_up"]

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
    digits = case_digits(case)
    with Catalogue.open(home.catalogue, vault=Vault(SiloKey.load(home.key))) as catalogue:
        found = case_named(catalogue, digits)
        study = catalogue.identity(found)
        if study is None:
            raise CaseUnknown(
                "no image of this case is held any more, so that its study is forgotten",
                where=found,
                remedy="If it was ingested by an earlier version, run `silo ingest` and ask again.",
            )
        audit = AuditLog(home.audit)
        audit.append("whois", {"case": found, "user": user, "reason": reason[:_LONGEST_REASON]})
        audit.close()
        return Whois(case=found, study=study, files=tuple(catalogue.files_of(found)))
