"""Where a silo's images come from; secrets are named by file, never written here."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, model_validator

from silo_app.settings.base import Settings

__all__ = [
    "DicomWebSource",
    "DimseSource",
    "FolderSource",
    "ListenSource",
    "SourceSettings",
    "TlsSettings",
    "require_distinct",
]

_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
_TITLE = r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$"
"""An AE title: up to 16 characters without backslash and control characters (PS3.5 6.2, VR AE)."""

AeTitle = Annotated[str, Field(pattern=_TITLE)]
Modality = Literal["CR", "DX", "RG"]


class TlsSettings(Settings):
    """TLS with certificates from files (PEM); relative paths are relative to the kit."""

    ca_file: Path
    """The certificates that the other side's must come from."""
    certificate_file: Path | None = None
    """Our certificate; `listen` needs one, and then also demands one of whoever calls."""
    key_file: Path | None = None
    """Our private key (0600)."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together")
        return self


class FolderSource(Settings):
    """A folder of DICOM files, read recursively, and into zip files; a relative path is relative to the kit."""

    kind: Literal["folder"] = "folder"
    name: str = Field(default="", pattern=r"^$|" + _NAME)
    """What `silo ingest --only` calls it; the catalogue names it by its path."""
    path: Path
    """The folder."""


class DicomWebSource(Settings):
    """An archive that speaks DICOMweb (QIDO-RS and WADO-RS, PS3.18)."""

    kind: Literal["dicomweb"]
    name: str = Field(pattern=_NAME)
    """What the silo calls this archive, for ever: the catalogue knows the images by it."""
    url: str = Field(pattern=r"^https?://[^\s@?#]+$")
    """The service's base URL, such as https://pacs.example/dicom-web; without a password."""
    modalities: tuple[Modality, ...] = Field(default=("CR", "DX"), min_length=1)
    """Only series of these modalities are asked for."""
    since: dt.date | None = None
    """Only studies from this date on are asked for; others are left, or taken out of the silo."""
    password_file: Path | None = None
    """A private file (0600) that holds "user:password"."""
    token_file: Path | None = None
    """A private file (0600) that holds a bearer token."""
    tls: TlsSettings | None = None
    """The authority, and our certificate if the archive wants one; null for the system's authorities."""
    without_tls: bool = False
    """Whether http is allowed to another machine: images and the password then cross the network in clear."""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """How long the archive may stay silent."""
    patience_s: float = Field(default=300.0, ge=0, le=86400)
    """How long an archive that does not answer is tried again before this run gives it up."""

    @model_validator(mode="after")
    def _one_secret_and_safe(self) -> Self:
        if self.password_file and self.token_file:
            raise ValueError("name a password_file or a token_file, not both")
        parts = urlsplit(self.url)
        _require_safe(parts.hostname or "", has_tls=parts.scheme == "https", without_tls=self.without_tls)
        return self


class DimseSource(Settings):
    """An archive that speaks DIMSE: C-FIND, and C-GET or C-MOVE (PS3.4 annex C, study root)."""

    kind: Literal["dimse"]
    name: str = Field(pattern=_NAME)
    """What the silo calls this archive, for ever: the catalogue knows the images by it."""
    host: str = Field(min_length=1)
    """The archive's host name or address."""
    port: int = Field(ge=1, le=65535)
    """The archive's port."""
    ae_title: AeTitle
    """The archive's AE title."""
    our_ae_title: AeTitle = "SILOSCOPE"
    """Ours; the archive must know it."""
    retrieve: Literal["get", "move"] = "move"
    """With C-MOVE the archive calls us back, where its own configuration says; with C-GET it need not."""
    move_host: str = "127.0.0.1"
    """Where we are called back: the address of this machine that the archive knows."""
    move_port: int = Field(default=11113, ge=1, le=65535)
    """The port at which we are called back."""
    modalities: tuple[Modality, ...] = Field(default=("CR", "DX"), min_length=1)
    """Only series of these modalities are asked for."""
    since: dt.date | None = None
    """Only studies from this date on are asked for; others are left, or taken out of the silo."""
    tls: TlsSettings | None = None
    """TLS for both directions; null for none."""
    without_tls: bool = False
    """Whether another machine is spoken to without TLS: images then cross the network in clear."""
    timeout_s: float = Field(default=30.0, gt=0, le=3600)
    """How long the archive may stay silent."""
    patience_s: float = Field(default=300.0, ge=0, le=86400)
    """How long an archive that does not answer is tried again before this run gives it up."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        _require_safe(self.host, has_tls=self.tls is not None, without_tls=self.without_tls)
        if self.retrieve == "move":
            _require_safe(self.move_host, has_tls=self.tls is not None, without_tls=self.without_tls)
            if self.tls and self.tls.certificate_file is None:
                raise ValueError("C-MOVE with TLS needs tls.certificate_file: the archive calls us back")
        return self


class ListenSource(Settings):
    """Images that the archive or its router sends to us (`silo listen`, a C-STORE SCP); kept in the silo's inbox."""

    kind: Literal["listen"]
    name: str = Field(pattern=_NAME)
    """What the silo calls this source, for ever: the catalogue knows the images by it."""
    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = Field(default=11112, ge=0, le=65535)
    """The port; 0 chooses a free one."""
    ae_title: AeTitle = "SILOSCOPE"
    """Our AE title; who calls another one is rejected."""
    peers: tuple[AeTitle, ...] = Field(min_length=1)
    """The AE titles that may send."""
    tls: TlsSettings | None = None
    """TLS; who calls must show a certificate of `ca_file`. Null for none."""
    without_tls: bool = False
    """Whether other machines may send without TLS: an AE title is no secret."""
    keep_free_mib: int = Field(default=1024, ge=0)
    """Images are answered "out of resources" when the disk has less room than this (MiB); senders try again."""
    timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """How long a sender may stay silent."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.tls and self.tls.certificate_file is None:
            raise ValueError("tls needs certificate_file and key_file to listen")
        _require_safe(self.host, has_tls=self.tls is not None, without_tls=self.without_tls)
        return self


def _require_safe(host: str, *, has_tls: bool, without_tls: bool) -> None:
    if not (has_tls or without_tls or _is_loopback(host)):
        raise ValueError(f"{host} is not this machine: use TLS, or say without_tls: true")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _kind(value: Any) -> str:
    kind = value.get("kind", "folder") if isinstance(value, dict) else getattr(value, "kind", "folder")
    return str(kind)


SourceSettings = Annotated[
    Annotated[FolderSource, Tag("folder")]
    | Annotated[DicomWebSource, Tag("dicomweb")]
    | Annotated[DimseSource, Tag("dimse")]
    | Annotated[ListenSource, Tag("listen")],
    Discriminator(_kind),
]
"""One source; without `kind` it is a folder."""


def require_distinct(sources: Sequence[SourceSettings]) -> None:
    """Raise `ValueError` if two sources share a name: the catalogue would mix them up."""
    names = [source.name for source in sources if source.name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two sources are called {', '.join(twice)}")
