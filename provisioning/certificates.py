"""The certificates of a startup kit: there, of one pair, of this federation, and until when."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from silo_app.errors import CertificateMissing

__all__ = ["Certificate", "check", "read"]

_REMEDY = "Provision again (`consortium provision`): it puts back what is missing and keeps everything else."


@dataclass(frozen=True, slots=True)
class Certificate:
    """Whose certificate it is, and its life."""

    participant: str
    expires: datetime
    """The last moment at which it is valid, UTC."""

    @property
    def days_left(self) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.expires - datetime.now(UTC)).days


def read(kit: Path) -> Certificate:
    """Read the certificate of a startup kit. Raises `CertificateMissing`."""
    certificate = _load(kit, _pair(kit)[0])
    return Certificate(participant=kit.name, expires=certificate.not_valid_after_utc)


def check(kit: Path) -> Certificate:
    """Check that a kit's certificate and key are there, belong together and to the root, and are valid today."""
    certificate_name, key_name = _pair(kit)
    certificate, root = _load(kit, certificate_name), _load(kit, "rootCA.pem")
    if _key(kit, key_name).public_key() != certificate.public_key():
        raise CertificateMissing(f"{key_name} is not the key of {certificate_name}", where=str(kit), remedy=_REMEDY)
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise CertificateMissing(
            f"{certificate_name} was not issued by this kit's rootCA.pem", where=str(kit), remedy=_REMEDY
        ) from None
    found = Certificate(participant=kit.name, expires=certificate.not_valid_after_utc)
    if found.expires <= datetime.now(UTC):
        raise CertificateMissing(
            f"the certificate expired on {found.expires:%Y-%m-%d}",
            where=str(kit),
            remedy="Whoever has the root's key renews it (`consortium renew`); it goes into the kit's startup folder.",
        )
    return found


def _pair(kit: Path) -> tuple[str, str]:
    role = "server" if (kit / "startup" / "fed_server.json").is_file() else "client"
    return f"{role}.crt", f"{role}.key"


def _load(kit: Path, name: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_content(kit, name))
    except ValueError:
        raise CertificateMissing(f"{name} is not a certificate", where=str(kit), remedy=_REMEDY) from None


def _key(kit: Path, name: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_content(kit, name), password=None)
    except (ValueError, TypeError):
        raise CertificateMissing(f"{name} is not a private key", where=str(kit), remedy=_REMEDY) from None


def _content(kit: Path, name: str) -> bytes:
    file = kit / "startup" / name
    if not file.is_file():
        raise CertificateMissing(f"startup/{name} is missing", where=str(kit), remedy=_REMEDY)
    return file.read_bytes()
