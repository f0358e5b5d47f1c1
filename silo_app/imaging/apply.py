"""One decoded file -> the catalogue: pseudonyms, the instance it holds, the labels in its header."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from silo_app.cases import PatientKey
from silo_app.catalogue import FileRecord, SiloKey, StudyIdentity, ViewKeys, ViewRecord
from silo_app.catalogue.writing import CatalogueWriter
from silo_app.errors import NotReady
from silo_app.imaging.header import Header
from silo_app.imaging.labels import Vocabulary
from silo_app.imaging.refusal import RefusalReason
from silo_app.imaging.sources import SourceFile

__all__ = ["RECALLED", "Applier", "keys_of"]

RECALLED = "its study or its patient was taken out of the silo"
_OLDEST = 90
"""Ages above 89 identify (45 CFR 164.514(b)(2)(i)(C)): they are one."""


@dataclass(slots=True, kw_only=True)
class Applier:
    """Writes the replies of the decoders into the catalogue, and counts."""

    key: SiloKey
    held_out_share: float
    recipe: str
    vocabulary: Vocabulary | None
    """For labels in a DICOM attribute."""
    left: tuple[str, ...] = ()
    """Sources that are no more; what they had gives way to what others have."""
    added: int = 0
    same: int = 0
    replaced: int = 0
    burned_in: int = 0
    """Views that were read now and seem to name their patient, where the silo takes those."""

    @property
    def unmapped(self) -> Counter[str]:
        """Words of the labels' attribute that are not mapped."""
        return self.vocabulary.unmapped if self.vocabulary else Counter()

    def apply(
        self,
        writer: CatalogueWriter,
        source: str,
        file: SourceFile,
        known: FileRecord | None,
        reply: dict[str, Any],
    ) -> None:
        """Write down what became of one file (`worker.decode`)."""
        if "failed" in reply:
            raise NotReady(
                f"the cache cannot be written ({reply['failed']})",
                remedy="Make room on the disk of the silo's folder and run `silo ingest` again: it goes on from here.",
            )
        digest = reply.get("digest")
        header = Header(**reply["header"]) if "header" in reply else None
        held = known.digest if known else None
        if held is not None and held != digest and not (header and digest and self._renamed(writer, held, header, digest)):
            writer.forget_files(source, [file.name])
            self.replaced += writer.drop_if_orphan(held)
        if header and digest:
            reply = self._add(writer, digest, header, reply)
        elif digest is not None:
            self.same += 1
        writer.record_file(
            FileRecord(
                source=source,
                path=file.name,
                size=file.size,
                mtime_ns=file.mtime_ns,
                recipe=self.recipe,
                digest=reply.get("digest"),
                reason=reply.get("reason", ""),
                detail=reply.get("detail", ""),
                instance=reply.get("instance", ""),
            )
        )

    def _renamed(self, writer: CatalogueWriter, held: str, header: Header, digest: str) -> bool:
        """Rename the view that a file holds, if it is of the same image and nothing of this version has read it yet.

        Earlier versions named contents otherwise. What is known about the view stays, and so does its case.
        """
        if writer.holder(keys_of(self.key, header).instance) != held or writer.is_held(held, self.recipe):
            return False
        writer.rename(held, digest)
        return True

    def _add(self, writer: CatalogueWriter, digest: str, header: Header, reply: dict[str, Any]) -> dict[str, Any]:
        """Add the view; return the reply, or a refusal if another file holds the same instance."""
        keys = keys_of(self.key, header)
        if writer.is_recalled(keys):
            return {"reason": RefusalReason.RECALLED.value, "detail": RECALLED}
        holder = writer.holder(keys.instance)
        if holder not in {None, digest} and writer.give_up(holder, self.left):
            self.replaced += 1
            holder = None
        if holder not in {None, digest}:
            return {
                "reason": RefusalReason.DUPLICATE_INSTANCE.value,
                "detail": "another file holds this image (SOP Instance UID) with other content",
                "instance": keys.instance,
            }
        case = writer.add_view(
            ViewRecord(
                digest=digest,
                keys=keys,
                split=self.key.split(_person(self.key, keys, header), self.held_out_share),
                position=header.position,
                sex=header.sex,
                age=None if header.age is None else min(header.age, _OLDEST),
                study_year=header.study_year,
                device=header.device,
                burned_in=reply["burned_in"],
                **reply["size"] | {"brightness": bytes.fromhex(reply["size"]["brightness"])},
            )
        )
        writer.remember(case, _identity(header))
        self.burned_in += bool(reply["burned_in"])
        self.added += holder is None
        self.same += holder is not None
        if self.vocabulary:
            labels = self.vocabulary.labels(header.label or "")
            writer.relabel({digest: labels})
        return reply


def _identity(header: Header) -> StudyIdentity:
    return StudyIdentity(
        study_uid=header.study_uid, accession=header.accession, patient_id=header.patient_id, issuer=header.issuer
    )


def _person(key: SiloKey, keys: ViewKeys, header: Header) -> PatientKey:
    """Return whose split an image has: that of its Patient ID, whoever issued it.

    Archives name the issuer in some files of a patient and not in others, and nobody is both trained on and held out.
    """
    return key.patient(header.patient_id, "") if header.patient_id else keys.patient


def keys_of(key: SiloKey, header: Header) -> ViewKeys:
    """Return the pseudonyms of an image.

    An image without a study UID is a study by its series, or by itself; one without a Patient ID belongs to a patient
    of its study alone: two studies are never joined by a guess. A study UID that two patients share is two studies.
    """
    instance = key.name("instance", header.instance_uid) or key.name("content", header.content)
    study = header.study_uid or header.series_uid or instance
    patient = key.patient(header.patient_id, header.issuer) if header.patient_id else key.patient("", f"study {study}")
    return ViewKeys(
        instance=instance,
        study=key.name("study", study, patient),
        study_uid=key.name("study-uid", header.study_uid),
        accession=key.name("accession", header.accession),
        patient=patient,
        patient_id=key.name("patient-id", header.patient_id),
        series=key.name("series", header.series_uid, study, patient) if header.series_uid else "",
    )
