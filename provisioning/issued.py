"""What the authority of a federation has issued: NVFlare's `state/cert.json`, with the root's private key in it."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from provisioning.consortium import SERVER, Consortium
from silo_app.errors import ConfigInvalid

__all__ = ["Issued"]


@dataclass(frozen=True)
class Issued:
    """The root and every participant's certificate and key, as NVFlare keeps them; empty before the first provisioning."""

    content: dict[str, Any]

    @classmethod
    def read(cls, state: Path) -> Self:
        """Read the state. Raises `ConfigInvalid` if it is damaged: without the root's key nothing more can be issued."""
        if not state.is_file():
            return cls({})
        try:
            issued = cls(json.loads(state.read_text(encoding="utf-8")))
            _require_whole(issued)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigInvalid(
                "this file with the root's key is damaged",
                where=str(state),
                remedy="Restore .authority from its backup: a new one would mean new keys for everybody.",
            ) from None
        return issued

    @property
    def root(self) -> x509.Certificate | None:
        """The root certificate, if there is one yet."""
        return x509.load_pem_x509_certificate(self.content["root_cert"].encode()) if self.content else None

    @property
    def participants(self) -> tuple[str, ...]:
        """Everybody who ever was given a certificate."""
        return tuple(name for name, value in self.content.items() if isinstance(value, dict))

    def certificate(self, name: str) -> x509.Certificate | None:
        """Return a participant's certificate, or None if it has none."""
        return x509.load_pem_x509_certificate(self.content[name]["cert"].encode()) if name in self.content else None

    def due(self, name: str, within: timedelta) -> bool:
        """Return whether a participant's certificate ends within that time, or has ended."""
        certificate = self.certificate(name)
        return certificate is not None and certificate.not_valid_after_utc <= datetime.now(UTC) + within

    def without(self, names: Collection[str]) -> Self:
        """Return the same without some participants' certificates: NVFlare then issues new ones, with new keys."""
        return type(self)({name: value for name, value in self.content.items() if name not in names})

    def differing(self, consortium: Consortium) -> tuple[str, ...]:
        """Return whose certificate says something else than the consortium does: organisation, role or the server's host.

        NVFlare would give out the old one again, and refuses a person whose role changed.
        """
        certificates = {name: self.certificate(name) for name in consortium.participants}
        wanted = _wanted(consortium)
        return tuple(name for name, one in certificates.items() if one is not None and not _says(one, *wanted[name]))


def _require_whole(issued: Issued) -> None:
    """Raise what reading raises, unless root and certificates can be read; an empty state would make a new root."""
    load_pem_private_key(issued.content["root_pri_key"].encode(), password=None)
    x509.load_pem_x509_certificate(issued.content["root_cert"].encode())
    for name in issued.participants:
        issued.certificate(name)


def _wanted(consortium: Consortium) -> dict[str, tuple[str, str, str]]:
    """Return what each participant's certificate has to say: organisation, role, and a host or the own name."""
    server, anchor = consortium.server, consortium.anchor
    said = {SERVER: (server.organisation, "", server.host), anchor: (server.organisation, "", anchor)}
    said |= {silo.name: (silo.org, "", silo.name) for silo in consortium.silos}
    return said | {person.name: (person.organisation, person.role, person.name) for person in consortium.people}


def _says(certificate: x509.Certificate, organisation: str, role: str, host: str) -> bool:
    subject = certificate.subject
    if (_attribute(subject, NameOID.ORGANIZATION_NAME), _attribute(subject, NameOID.UNSTRUCTURED_NAME)) != (
        organisation,
        role,
    ):
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return host in {str(name.value) for name in names}


def _attribute(subject: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return "".join(str(one.value) for one in subject.get_attributes_for_oid(oid))
