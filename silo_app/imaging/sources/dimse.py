"""An archive over DIMSE (PS3.4 annex C, study root): C-FIND lists, C-GET or C-MOVE gives each image."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo_app.config import DimseSource, SiloHome
from silo_app.errors import SourceEmpty
from silo_app.imaging.attributes import text
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.sources.association import Archive
from silo_app.imaging.sources.remote import STUDY_KEYWORDS, Instance, gone, instance_of, remote_file
from silo_app.imaging.sources.source import Fetch, SourceFile
from silo_app.imaging.sources.storage import receiving, spooled

__all__ = ["DimseFiles"]


@dataclass(frozen=True, slots=True)
class DimseFiles:
    """The images of the configured modalities in an archive."""

    home: SiloHome
    settings: DimseSource

    @property
    def name(self) -> str:
        """The source's configured name."""
        return self.settings.name

    def files(self) -> list[SourceFile]:
        """Return every image. Raises `SourceUnreachable`; `SourceEmpty` if the archive shows us nothing."""
        found: dict[str, SourceFile] = {}
        with Archive(self.home, self.settings) as archive:
            for modality in self.settings.modalities:
                for study, facts in self._studies(archive, modality):
                    for instance in _instances(archive, study, modality):
                        file = remote_file(instance, facts)
                        found[file.name] = file
        if not found:
            raise SourceEmpty(
                "the archive shows us no image",
                where=archive.where,
                remedy="Ask its administrator what our AE title may see, and check `modalities` and `since`.",
            )
        return [found[name] for name in sorted(found)]

    def confirm_gone(self, names: Sequence[str]) -> list[str]:
        """Return the names that the archive, asked series by series, does not hold, or no longer in the period asked for."""
        pairs = {instance_of(name)[:2] for name in names}
        with Archive(self.home, self.settings) as archive:
            dated = {study for study, _ in pairs if archive.find("STUDY", StudyInstanceUID=study, StudyDate=self._period)}
            held = {(u, s): set(_of_series(archive, u, s)) if u in dated else set() for u, s in pairs}
        return gone(names, held)

    def named(self, name: str) -> SourceFile:
        """Return the image of this name."""
        return remote_file(instance_of(name), {})

    @contextmanager
    def fetching(self, spool: Path) -> Iterator[Fetch]:
        """Give images as files in `spool`: over the association that asks (C-GET), or over one back to us (C-MOVE)."""
        with ExitStack() as stack:
            if self.settings.retrieve == "move":
                stack.enter_context(receiving(self.home, self.settings, spool))
            archive = stack.enter_context(Archive(self.home, self.settings, spool))

            def fetch(file: SourceFile) -> Path:
                instance = instance_of(file.name)
                target = spooled(spool, instance.sop)
                problem = archive.retrieve(instance, target)
                if not target.is_file():
                    raise refusal(RefusalReason.NOT_RETRIEVED, f"the archive does not give the image ({problem})")
                return target

            yield fetch

    @property
    def _period(self) -> str:
        return f"{self.settings.since:%Y%m%d}-" if self.settings.since else ""

    def _studies(self, archive: Archive, modality: str) -> Iterator[tuple[str, dict[str, str]]]:
        wanted = dict.fromkeys(STUDY_KEYWORDS, "") | {"StudyDate": self._period}
        for found in archive.find("STUDY", StudyInstanceUID="", ModalitiesInStudy=modality, **wanted):
            yield text(found, "StudyInstanceUID"), {keyword: text(found, keyword) for keyword in STUDY_KEYWORDS}


def _instances(archive: Archive, study: str, modality: str) -> Iterator[Instance]:
    for found in archive.find("SERIES", StudyInstanceUID=study, SeriesInstanceUID="", Modality=modality):
        series = text(found, "SeriesInstanceUID")
        if text(found, "Modality") == modality:
            for sop in _of_series(archive, study, series):
                yield Instance(study, series, sop)


def _of_series(archive: Archive, study: str, series: str) -> list[str]:
    found = archive.find("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID="")
    return [text(image, "SOPInstanceUID") for image in found]
