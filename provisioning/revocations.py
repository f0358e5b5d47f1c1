"""Certificates that ended before their time: a list beside the root's key, of which the server gets a copy.

It is written before new certificates are issued: a run that is cut off between the two has revoked, and the next one issues.
"""

import json
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from provisioning.issued import Issued
from silo_app import durable

__all__ = ["revocations", "revoke_present"]

_FILE = "revoked.json"


def revocations(authority: Path) -> list[dict[str, str]]:
    """Return every revoked certificate: whose it was, its serial number, when it was revoked, when it would have ended."""
    file = authority / _FILE
    found: list[dict[str, str]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return found


def revoke_present(authority: Path, issued: Issued, names: Collection[str]) -> None:
    """Add the certificates that these participants have now to the list."""
    found = revocations(authority)
    for name in names:
        certificate = issued.certificate(name)
        if certificate is not None:
            found.append(
                {
                    "name": name,
                    "serial": f"{certificate.serial_number:x}",
                    "revoked": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
                    "ends": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
                }
            )
    durable.write_text(authority / _FILE, json.dumps(found, indent=1))
