"""Where images come from: folders, archives over DICOMweb and DIMSE, and the inbox of what is sent to us."""

from silo_app.config import DicomWebSource, DimseSource, FolderSource, ListenSource, SiloHome, SourceSettings
from silo_app.imaging.sources.folder import FolderFiles, open_folder
from silo_app.imaging.sources.source import Fetch, Source, SourceFile

__all__ = ["Fetch", "FolderFiles", "Source", "SourceFile", "open_folder", "open_source"]


def open_source(home: SiloHome, settings: SourceSettings) -> Source:
    """Return the source that a silo's configuration describes; nothing is asked yet.

    Raises `SourceEmpty` for a folder that is not there.
    """
    match settings:
        case FolderSource():
            return open_folder(home.resolve(settings.path))
        case DicomWebSource():
            from silo_app.imaging.sources.dicomweb import DicomWebFiles

            return DicomWebFiles(home, settings)
        case DimseSource():
            from silo_app.imaging.sources.dimse import DimseFiles

            return DimseFiles(home, settings)
        case ListenSource():
            from silo_app.imaging.sources.inbox import Inbox, InboxFiles

            return InboxFiles(settings.name, Inbox(home.inbox / settings.name))
