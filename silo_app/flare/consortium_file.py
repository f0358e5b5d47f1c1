"""Who is in the federation, as the server's own configuration says (`local/consortium.json`, written by provisioning).

The connected sites are not the answer: a silo that is down belongs to the federation too, and a query must say so. Nor is
a certificate: it stays valid when its hospital leaves.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from silo_app.errors import ConfigInvalid, NotReady

FILE_NAME = "consortium.json"


@dataclass(frozen=True)
class Members:
    """The silos' names in order, and the anchor's; who may administer; certificates that are good no more."""

    silos: tuple[str, ...]
    anchor: str
    people: tuple[str, ...] = ()
    revoked: frozenset[int] = frozenset()
    """Serial numbers."""

    def has(self, name: str) -> bool:
        """Return whether a site or person of this name is in the federation."""
        return name == self.anchor or name in self.silos or name in self.people


def read_members(kit: Path) -> Members:
    """Read the federation's members from the server's kit.

    Raises `NotReady` without the file, `ConfigInvalid` when it is not what provisioning writes.
    """
    file = kit / "local" / FILE_NAME
    if not file.is_file():
        raise NotReady(f"there is no {file}", remedy="Provision the server again with `consortium provision`.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Members(
            silos=tuple(sorted(str(name) for name in content["silos"])),
            anchor=str(content["anchor"]),
            people=tuple(str(name) for name in content.get("people", ())),
            revoked=frozenset(int(serial, 16) for serial in content.get("revoked", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigInvalid(
            'expected {"silos": [names], "anchor": name, "people": [names], "revoked": [serial numbers]}',
            where=str(file),
            remedy="Provision the server again with `consortium provision`.",
        ) from None
