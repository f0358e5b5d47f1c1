"""Studies and patients that a hospital takes out of its silo, and those that it lets in again: audited, and for good.

What is taken out leaves the catalogue, the cache, and from the next answer on every search; no ingest brings it back,
though the archive still has it. Its vector stays in the index files, where no query reaches it, until the index is built
again. What an archive sent stays in the silo's inbox, named to whoever takes it out: without it nothing could be let in
again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from silo_app.audit.log import AuditLog
from silo_app.catalogue import Catalogue, SiloKey, Vault
from silo_app.config import SiloHome
from silo_app.errors import CaseUnknown, ConfigInvalid
from silo_app.imaging.apply import RECALLED
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.refusal import RefusalReason

__all__ = ["Recalled", "Subject", "recall", "restore"]

_LONGEST_REASON = 200
_DIGITS = 8
_WHICH = "Give a case id as `silo search` shows it, or --study-uid, or --patient-id."


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What to take out: exactly one of a case id (or its first 8 digits), a Study Instance UID, a Patient ID."""

    case: str = ""
    study_uid: str = ""
    patient_id: str = ""

    @property
    def kind(self) -> Literal["study", "patient"]:
        """Whether one study is meant, or a patient with all studies, those to come too."""
        return "patient" if self.patient_id else "study"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What was taken out or let in."""

    kind: str
    found: int
    """Studies or patients."""
    views: int
    """Views that left catalogue and cache; 0 when they are let in: the next ingest reads them."""
    sent: tuple[str, ...] = ()
    """Their files in the silo's inbox, with all that the archive sent; they stay there."""


def recall(home: SiloHome, subject: Subject, *, user: str, reason: str) -> Recalled:
    """Take a study or a patient out. Raises `CaseUnknown` if the silo has never known it, `ConfigInvalid`."""
    with Catalogue.open(home.catalogue, vault=Vault(key := SiloKey.load(home.key))) as catalogue:
        pseudonyms = _found(catalogue, key, subject)
        _audit(home, "case-recalled", subject, user, reason)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        with catalogue.writing() as writer:
            sent = _in_inbox(home, catalogue.files_holding(writer.held(subject.kind, pseudonyms)))
            digests = writer.recall(
                subject.kind, pseudonyms, since=since, reason=RefusalReason.RECALLED.value, detail=RECALLED
            )
    cache = RadiographCache(home.cache)
    for digest in digests:
        cache.discard(digest)
    return Recalled(kind=subject.kind, found=len(pseudonyms), views=len(digests), sent=sent)


def _in_inbox(home: SiloHome, files: Sequence[tuple[str, str, str]]) -> tuple[str, ...]:
    """Return where those of the files lie that came from a `listen` source, be it still in silo.yaml or not."""
    paths = [home.inbox / source / path for source, path, _ in files if "/" not in source]
    return tuple(str(path) for path in paths if path.is_file())


def restore(home: SiloHome, subject: Subject, *, user: str, reason: str) -> Recalled:
    """Let in again what was taken out; the next ingest reads it. Raises `CaseUnknown` if it was not, `ConfigInvalid`."""
    with Catalogue.open(home.catalogue, vault=Vault(key := SiloKey.load(home.key))) as catalogue:
        pseudonyms = _found(catalogue, key, subject)
        _audit(home, "case-restored", subject, user, reason)
        with catalogue.writing() as writer:
            restored = writer.restore(subject.kind, pseudonyms, reason=RefusalReason.RECALLED.value)
    if not restored:
        raise CaseUnknown(f"this {subject.kind} was not taken out", remedy="Name it as it was named then: study or patient.")
    return Recalled(kind=subject.kind, found=restored, views=0)


def _found(catalogue: Catalogue, key: SiloKey, subject: Subject) -> list[str]:
    named = [value for value in (subject.case, subject.study_uid, subject.patient_id) if value]
    if len(named) != 1:
        raise ConfigInvalid(f"{len(named)} things name what to take, one is needed", where="arguments", remedy=_WHICH)
    case = ""
    if subject.case:
        start = subject.case.strip().lower()
        cases = catalogue.cases_like(start) if len(start) >= _DIGITS else []
        if len(cases) != 1:
            raise CaseUnknown("two cases begin so" if cases else "no case of this silo begins so", remedy=_WHICH)
        case = cases[0]
    found = catalogue.pseudonyms_of(
        subject.kind,
        case=case,
        uid=key.name("study-uid", subject.study_uid),
        patient=key.name("patient-id", subject.patient_id),
    )
    if not found:
        raise CaseUnknown(f"this silo has never held this {subject.kind}", remedy=_WHICH)
    return found


def _audit(home: SiloHome, kind: str, subject: Subject, user: str, reason: str) -> None:
    """Write down who took what out, and why, before it happens; an identifier is not among it."""
    audit = AuditLog(home.audit)
    named = subject.case or ("by patient" if subject.patient_id else "by study")
    audit.append(kind, {"kind": subject.kind, "case": named, "user": user, "reason": reason[:_LONGEST_REASON]})
    audit.close()
