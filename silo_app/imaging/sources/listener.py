"""`silo listen`: what the archive routes to us is on disk before it is told so; what it rejects later is removed.

A Key Object Selection document that rejects images (IHE RAD TF-3 4.66.4.1.3.1, Rejection Note) takes them out of the
inbox; the next ingest takes them out of catalogue and cache, and the next generation of the index lacks them.
"""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from silo_app.config import ListenSource, SiloHome
from silo_app.durable import private_folder
from silo_app.imaging.content import MAX_FILE_BYTES
from silo_app.imaging.parse import quiet
from silo_app.imaging.sources.inbox import Inbox
from silo_app.imaging.sources.storage import IMAGE_CLASSES, Status, served
from silo_app.imaging.sources.tls import listening_context

__all__ = ["listening"]

_KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
_REJECTIONS = {"113001", "113037", "113038", "113039"}
"""DCM: for quality, for patient safety, incorrect worklist entry, retention expired (IHE RAD TF-3, table 4.66.4.1.3.1-1)."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def listening(home: SiloHome, settings: ListenSource) -> Iterator[int]:
    """Take images into the inbox of a source while the block lasts; yields the port. Raises `PortTaken`."""
    private_folder(home.inbox)
    inbox = Inbox(private_folder(home.inbox / settings.name))
    with served(
        (settings.host, settings.port),
        title=settings.ae_title,
        peers=settings.peers,
        classes=(*IMAGE_CLASSES, _KEY_OBJECTS),
        store=lambda event: _store(inbox, event, settings.keep_free_mib << 20),
        timeout_s=settings.timeout_s,
        tls=listening_context(home, settings.tls) if settings.tls else None,
    ) as port:
        inbox.sweep()  # the port is ours, so that nobody else writes here
        yield port


def _store(inbox: Inbox, event: Any, keep_free: int) -> int:
    """Store what was sent and return the status to answer; success only for what a power cut cannot take away."""
    sop_class, sop = str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)
    if sop_class == _KEY_OBJECTS:
        return _reject(inbox, event)
    if sop_class not in IMAGE_CLASSES:
        return Status.CLASS_NOT_SUPPORTED
    try:
        content = event.encoded_dataset()
        if len(content) > MAX_FILE_BYTES or inbox.free_bytes() < keep_free + len(content):
            return Status.OUT_OF_RESOURCES
        inbox.store(sop, content)
    except OSError as error:
        return Status.OUT_OF_RESOURCES if error.errno in _FULL else Status.PROCESSING_FAILURE
    return Status.SUCCESS


def _reject(inbox: Inbox, event: Any) -> int:
    """Remove what a rejection note names; other key objects are taken and not kept."""
    try:
        with quiet():
            note = pydicom.dcmread(io.BytesIO(event.encoded_dataset()))
            if str(note.ConceptNameCodeSequence[0].get("CodeValue", "")) in _REJECTIONS:
                for sop in _referenced(note):
                    inbox.remove(sop)
    except OSError:
        return Status.PROCESSING_FAILURE
    except Exception:  # noqa: BLE001  (whatever pydicom raises for a document that is none)
        return Status.CANNOT_UNDERSTAND
    return Status.SUCCESS


def _referenced(note: Dataset) -> Iterator[str]:
    for study in note.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            for image in series.ReferencedSOPSequence:
                yield str(image.ReferencedSOPInstanceUID)
