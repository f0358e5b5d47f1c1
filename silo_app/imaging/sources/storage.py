"""Being sent images (C-STORE SCP, PS3.4 annex B): by a C-MOVE that we asked for, or by whoever `silo listen` allows."""

import hashlib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from silo_app.config import DimseSource, SiloHome
from silo_app.errors import PortTaken
from silo_app.imaging.sources.optional import pynetdicom_library
from silo_app.imaging.sources.tls import listening_context

__all__ = ["IMAGE_CLASSES", "TRANSFER_SYNTAXES", "Status", "receiving", "served", "spooled"]

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # CR
    "1.2.840.10008.5.1.4.1.1.1.1",  # DX for presentation
)
_REFUSED_LATER = (
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # DX for processing
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
)
"""May lie in a CR or DX series, so that an archive must be able to give it; then it is refused with its reason."""
ASKED_CLASSES = (*IMAGE_CLASSES, *_REFUSED_LATER)

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.1.99",  # deflated
    "1.2.840.10008.1.2.2",  # explicit VR big endian
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.201",  # high-throughput JPEG 2000, lossless
    "1.2.840.10008.1.2.4.202",  # the same with resolutions in order
    "1.2.840.10008.1.2.4.203",  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE
)


class Status:
    """What we answer to a C-STORE (PS3.4 B.2.3, PS3.7 annex C)."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700
    PROCESSING_FAILURE = 0x0110
    CLASS_NOT_SUPPORTED = 0x0122
    CANNOT_UNDERSTAND = 0xC000


def spooled(spool: Path, sop: str) -> Path:
    """Return where an image on its way into the cache lies."""
    return spool / hashlib.sha256(sop.encode()).hexdigest()


def store_in(spool: Path) -> Callable[[Any], int]:
    """Return a handler that writes what an archive sends into the spool."""

    def store(event: Any) -> int:
        try:
            target = spooled(spool, str(event.request.AffectedSOPInstanceUID))
            part = target.with_suffix(".part")
            part.write_bytes(event.encoded_dataset())
            part.replace(target)
        except OSError:
            return Status.OUT_OF_RESOURCES
        return Status.SUCCESS

    return store


@contextmanager
def receiving(home: SiloHome, settings: DimseSource, spool: Path) -> Iterator[int]:
    """Take what the archive sends us because of our C-MOVE; yields the port."""
    with served(
        (settings.move_host, settings.move_port),
        title=settings.our_ae_title,
        peers=(settings.ae_title,),
        classes=ASKED_CLASSES,
        store=store_in(spool),
        timeout_s=settings.timeout_s,
        tls=listening_context(home, settings.tls) if settings.tls else None,
    ) as port:
        yield port


@contextmanager
def served(
    address: tuple[str, int],
    *,
    title: str,
    peers: Sequence[str],
    classes: Sequence[str],
    store: Callable[[Any], int],
    timeout_s: float,
    tls: ssl.SSLContext | None,
) -> Iterator[int]:
    """Run an SCP for C-ECHO and C-STORE while the block lasts; yields the port. Raises `PortTaken`.

    Whoever does not name us by our title, and itself by one of the peers', is rejected before anything is exchanged.
    """
    library = pynetdicom_library()
    ae = library.AE(ae_title=title)
    ae.require_called_aet, ae.require_calling_aet = True, list(peers)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    ae.add_supported_context("1.2.840.10008.1.1")  # verification
    for sop_class in classes:
        ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
    try:
        server = ae.start_server(address, block=False, ssl_context=tls, evt_handlers=[(library.evt.EVT_C_STORE, store)])
    except OSError as error:
        raise PortTaken(
            f"nothing can listen there ({error.strerror or type(error).__name__})",
            where=f"{address[0]}:{address[1]}",
            remedy="Another `silo listen` or `silo ingest` may be running; else choose another port in silo.yaml.",
        ) from None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
