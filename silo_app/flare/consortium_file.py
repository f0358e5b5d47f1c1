"""Who is in the federation, as the server's own configuration says (`local/consortium.json`, written by provisioning).

The connected sites are not the answer: a silo that is down belongs to the federation too, and a query must say so.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from silo_app.errors import ConfigInvalid, NotReady

FILE_NAME = "consortium.json"


@dataclass(frozen=True)
class Members:
    """The silos' names in order, and the anchor's."""

    silos: tuple[str, ...]
    anchor: str


def read_members(kit: Path) -> Members:
    """Read the federation's members from the server's kit.

    Raises `NotReady` without the file, `ConfigInvalid` when it is not what provisioning writes.
    """
    file = kit / "local" / FILE_NAME
    if not file.is_file():
        raise NotReady(f"there is no {file}", remedy="Provision the server again with `consortium provision`.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Members(silos=tuple(sorted(str(name) for name in content["silos"])), anchor=str(content["anchor"]))
    except (ValueError, KeyError, TypeError):
        raise ConfigInvalid(
            'expected {"silos": [names], "anchor": name}',
            where=str(file),
            remedy="Provision the server again with `consortium provision`.",
        ) from None
