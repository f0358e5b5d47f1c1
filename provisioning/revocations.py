"""Certificates that ended before their time: a list beside the root's key, of which the server gets a copy.

It is written before new certificates are issued: a run that is cut off between the two has revoked, and the next one issues.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from provisioning.issued import Issued
from silo_app import durable
from silo_app.errors import ConfigInvalid

__all__ = ["Revoked", "revocations", "revoke_present"]

_FILE = "revoked.json"


class Revoked(BaseModel):
    """One certificate that is good no more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Whose it was."""
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]+$")]
    revoked: datetime
    ends: datetime
    """When it would have ended."""


_LIST = TypeAdapter(list[Revoked])


def revocations(authority: Path) -> list[Revoked]:
    """Return every revoked certificate. Raises `ConfigInvalid` if the list is damaged."""
    file = authority / _FILE
    if not file.is_file():
        return []
    try:
        return _LIST.validate_json(file.read_bytes())
    except ValidationError:
        raise ConfigInvalid(
            "this list of revoked certificates is damaged",
            where=str(file),
            remedy="Restore it from the backup of .authority. Without one, move it away and revoke again: "
            "server/local/consortium.json has the serial numbers that the server turns away now.",
        ) from None


def revoke_present(authority: Path, issued: Issued, names: Collection[str]) -> None:
    """Add the certificates that these participants have now to the list."""
    found = revocations(authority)
    for name in names:
        certificate = issued.certificate(name)
        if certificate is not None:
            found.append(
                Revoked(
                    name=name,
                    serial=f"{certificate.serial_number:x}",
                    revoked=datetime.now(UTC).replace(microsecond=0),
                    ends=certificate.not_valid_after_utc,
                )
            )
    durable.write_text(authority / _FILE, _LIST.dump_json(found, indent=1).decode())
