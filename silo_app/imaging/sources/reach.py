"""Whether a source answers now, without taking anything: one question, with our credentials, and no second try."""

import socket
from contextlib import closing
from typing import TypeVar

from silo_app.config import DicomWebSource, DimseSource, FolderSource, ListenSource, SiloHome, SourceSettings
from silo_app.durable import private_folder
from silo_app.errors import NotReady
from silo_app.imaging.sources.folder import listed, open_folder

__all__ = ["reach"]

S = TypeVar("S", DicomWebSource, DimseSource)

_NO_STUDY = "2.25.0"
"""A Study Instance UID that no study has: the question costs the archive nothing, and needs every right that ours need."""
_MOST_S = 10.0


def reach(home: SiloHome, settings: SourceSettings) -> str:
    """Return in words what was reached.

    Raises `NotReady`, `SourceEmpty`, `SourceUnreachable`, `ConfigInvalid`, `CertificateMissing`.
    """
    match settings:
        case FolderSource():
            return _folder(home, settings)
        case DicomWebSource():
            from silo_app.imaging.sources.dicomweb import DicomWebFiles

            DicomWebFiles(home, _at_once(settings)).holds(_NO_STUDY)
            return f"{settings.url} answers a query, with our credentials"
        case DimseSource():
            from silo_app.imaging.sources.association import Archive

            with Archive(home, _at_once(settings)) as archive:
                archive.find("STUDY", StudyInstanceUID=_NO_STUDY)
            back = "; whether it can reach us back for C-MOVE is seen at ingest" if settings.retrieve == "move" else ""
            return f"{archive.where} answers a C-FIND{back}"
        case ListenSource():
            return _listener(home, settings)


def _at_once(settings: S) -> S:
    return settings.model_copy(update={"patience_s": 0.0, "timeout_s": min(settings.timeout_s, _MOST_S)})


def _folder(home: SiloHome, settings: FolderSource) -> str:
    path = home.resolve(settings.path)
    open_folder(path)
    if not listed(path):
        raise NotReady("the folder is empty", where=str(path), remedy="Mount it, or let the archive export into it.")
    return f"{path} can be read"


def _listener(home: SiloHome, settings: ListenSource) -> str:
    private_folder(home.inbox)
    where = f"{settings.host}:{settings.port}"
    if not settings.port:
        return "any free port is taken when `silo listen` starts"
    try:
        with closing(socket.create_connection((settings.host, settings.port), timeout=_MOST_S)):
            return f"somebody listens at {where}"
    except OSError:
        raise NotReady(
            "nobody listens there, so that the archive's images wait",
            where=where,
            remedy="Start `silo listen` for this silo, and let the system keep it running.",
        ) from None
