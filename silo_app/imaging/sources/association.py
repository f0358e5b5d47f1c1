"""One association with an archive, opened again when the archive restarts (PS3.8; PS3.4 annex C)."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydicom.dataset import Dataset

from silo_app.config import DimseSource, SiloHome
from silo_app.imaging.parse import quiet
from silo_app.imaging.sources.optional import pynetdicom_library
from silo_app.imaging.sources.patience import Outage, patiently, unreachable
from silo_app.imaging.sources.remote import Instance
from silo_app.imaging.sources.storage import ASKED_CLASSES, TRANSFER_SYNTAXES, store_in
from silo_app.imaging.sources.tls import calling_context

__all__ = ["Archive"]

T = TypeVar("T")
FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
_PENDING = {0xFF00, 0xFF01}
_NO_DESTINATION = 0xA801
_NOT_ALLOWED = 0x0124
_TITLES = "Check ae_title and our_ae_title of this source, and let the archive's administrator enter ours."


class Archive:
    """An archive's other end; `spool` is where C-GET puts images."""

    def __init__(self, home: SiloHome, settings: DimseSource, spool: Path | None = None) -> None:
        self.where = f"{settings.ae_title} at {settings.host}:{settings.port}"
        self._settings = settings
        self._spool = spool
        self._tls = calling_context(home, settings.tls) if settings.tls else None
        self._library = pynetdicom_library()
        self._association: Any = None

    def __enter__(self) -> Self:
        """Return it; the association is opened when it is first needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()

    def find(self, level: str, **keys: str) -> list[Dataset]:
        """Return every match of a C-FIND. Raises `SourceUnreachable` unless the archive says that these are all."""
        query = _identifier(level, keys)

        def ask() -> list[Dataset]:
            found: list[Dataset] = []
            for status, match in self._open().send_c_find(query, FIND):
                code = self._code(status)
                if code in _PENDING and match is not None:
                    found.append(match)
                elif code != 0:
                    raise Outage(f"C-FIND ends with status {code:04X}")
            return found

        return self._patiently(ask)

    def retrieve(self, instance: Instance, target: Path) -> str:
        """Have one image brought to `target`; return what the archive said, which tells why if it is not there."""
        study, series, sop = instance
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": sop}
        wanted = _identifier("IMAGE", keys)

        def ask() -> str:
            code = 0
            association = self._open()
            if self._settings.retrieve == "get":
                replies = association.send_c_get(wanted, GET)
            else:
                replies = association.send_c_move(wanted, self._settings.our_ae_title, MOVE)
            for status, _ in replies:
                code = self._code(status)
            if code == _NO_DESTINATION:
                raise unreachable(f"it does not know {self._settings.our_ae_title} as a destination", self.where, _TITLES)
            if code == _NOT_ALLOWED:
                raise unreachable("it does not let us retrieve (status 0124)", self.where, _TITLES)
            if not target.is_file() and not association.is_established:
                raise Outage("the association ended in the middle")
            return f"status {code:04X}"

        return self._patiently(ask)

    def _code(self, status: Dataset) -> int:
        """Return a status. Raises `Outage` for none: the association broke or timed out."""
        if "Status" not in status:
            raise Outage("the association ended in the middle")
        return int(status.Status)

    def _open(self) -> Any:
        if self._association is None or not self._association.is_established:
            self._association = self._associate()
        return self._association

    def _associate(self) -> Any:
        library, settings = self._library, self._settings
        ae = library.AE(ae_title=settings.our_ae_title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = settings.timeout_s
        for model in (FIND, GET if settings.retrieve == "get" else MOVE):
            ae.add_requested_context(model)
        roles = []
        if settings.retrieve == "get" and self._spool is not None:
            # One context for each syntax: the archive then sends what it holds, instead of converting to its first choice.
            for sop_class in ASKED_CLASSES:
                roles.append(library.build_role(sop_class, scp_role=True))
                for syntax in TRANSFER_SYNTAXES:
                    ae.add_requested_context(sop_class, syntax)
        handlers = [(library.evt.EVT_C_STORE, store_in(self._spool))] if self._spool else []
        association = ae.associate(
            settings.host,
            settings.port,
            ae_title=settings.ae_title,
            ext_neg=roles,
            evt_handlers=handlers,
            tls_args=(self._tls, settings.host) if self._tls else None,
        )
        if association.is_established:
            return association
        if (transport := association.dul.socket) and transport.socket:
            transport.socket.close()  # pynetdicom leaves the socket of a refused connection open
        if association.is_rejected:
            raise unreachable("the archive rejects the association", self.where, _TITLES)
        raise Outage("the archive does not answer")

    def _patiently(self, call: Callable[[], T]) -> T:
        def judged() -> T:
            try:
                with quiet():
                    return call()
            except (ValueError, RuntimeError) as error:  # a context that was not accepted, an association that closed
                if "presentation context" in str(error).lower():
                    raise unreachable("the archive does not offer us this service", self.where, _TITLES) from None
                raise Outage(f"the association failed ({type(error).__name__})") from None
            except OSError as error:
                raise Outage(f"the archive does not answer ({type(error).__name__})") from None

        return patiently(judged, patience_s=self._settings.patience_s, where=self.where)


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier
