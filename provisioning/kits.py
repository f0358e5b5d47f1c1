"""Provisioning as one call: a consortium becomes a federation of startup kits in one folder.

<out>/federation.json     what was provisioned
<out>/.authority/         NVFlare's provisioning state with the root's private key: back it up, keep it offline
<out>/<participant>/      one startup kit each, at a path that does not change
<out>/.run/               which processes `consortium up` started

Provisioning again keeps the root and everything that is right, and makes only what is new.
"""

from collections.abc import Sequence
from pathlib import Path

from provisioning import authority, layout, ports, renewal
from provisioning.consortium import Consortium
from provisioning.federation import Federation
from provisioning.layout import Tell
from silo_app import durable
from silo_app.errors import ConfigInvalid, NotReady
from silo_app.job_files import jobs_folder

__all__ = ["jobs_folder", "provision", "renew"]


def _silent(_line: str) -> None:
    pass


def provision(consortium: Consortium, out: Path, *, with_gateway: bool = True, tell: Tell = _silent) -> Federation:
    """Make or renew the federation in `out`; what is already right is not touched. `tell` hears every change."""
    out = out.resolve()
    if any(character.isspace() for character in str(out)):
        raise ConfigInvalid(
            "the folder's path holds a space, and NVFlare starts its job processes without quoting paths",
            where=str(out),
            remedy="Choose a folder without spaces with --out.",
        )
    durable.private_folder(out)
    consortium = _with_port(consortium, out)
    with authority.issue(consortium, out / ".authority") as staged:
        layout.lay_out(consortium, staged, out, with_gateway=with_gateway, tell=tell)
    federation = Federation(root=out, consortium=consortium)
    federation.save()
    return federation


def renew(federation: Federation, names: Sequence[str], *, within_days: int, tell: Tell = _silent) -> Federation:
    """Give `names` certificates that live anew: without names, all whose own ends within so many days."""
    for name in names:
        federation.kit(name)  # refuses who is not of it
    ending = names or [one.participant for one in federation.certificates() if one.days_left < within_days]
    if not ending:
        return federation
    renewal.renew(federation.consortium, federation.root / ".authority", ending)
    return provision(federation.consortium, federation.root, tell=tell)


def _with_port(consortium: Consortium, out: Path) -> Consortium:
    """Give the server of port 0 a free port, or the one it was given before."""
    if consortium.server.port != 0:
        return consortium
    try:
        port = Federation.load(out).consortium.server.port
    except NotReady:
        port = ports.free_port()
    return consortium.model_copy(update={"server": consortium.server.model_copy(update={"port": port})})
