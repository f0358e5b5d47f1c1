"""Provisioning as one call: a consortium becomes a federation of startup kits in one folder.

<out>/federation.json     what was provisioned
<out>/.authority/         NVFlare's provisioning state with the root's private key: back it up, keep it offline
<out>/<participant>/      one startup kit each, at a path that does not change
<out>/.run/               which processes `consortium up` started

Provisioning again keeps the root and everything that is right, and makes only what is new.
"""

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

from provisioning import authority, layout, ports
from provisioning.consortium import SERVER, Consortium
from provisioning.federation import Federation
from provisioning.issued import Issued
from provisioning.layout import Tell
from provisioning.revocations import revocations, revoke_present
from silo_app import durable
from silo_app.doctor.kit import SOON
from silo_app.errors import ConfigInvalid, NotReady
from silo_app.job_files import jobs_folder

__all__ = ["jobs_folder", "provision", "renew", "revoke"]


def _silent(_line: str) -> None:
    pass


def provision(
    consortium: Consortium, out: Path, *, with_gateway: bool = True, anew: Collection[str] = (), tell: Tell = _silent
) -> Federation:
    """Make the federation in `out`, or what is new in it; what is already right is not touched. `tell` hears every change.

    Those in `anew` get new certificates and keys.
    """
    out = out.resolve()
    if any(character.isspace() for character in str(out)):
        raise ConfigInvalid(
            "the folder's path holds a space, and NVFlare starts its job processes without quoting paths",
            where=str(out),
            remedy="Choose a folder without spaces with --out.",
        )
    durable.private_folder(out)
    consortium = _with_port(consortium, out)
    revoked = [one.serial for one in revocations(out / ".authority")]
    with authority.issue(consortium, out / ".authority", anew=anew) as staged:
        layout.lay_out(consortium, staged, out, with_gateway=with_gateway, revoked=revoked, tell=tell)
    federation = Federation(root=out, consortium=consortium)
    federation.save()
    for certificate in federation.certificates():
        if certificate.days_left < SOON.days:
            tell(f"{certificate.participant}: its certificate ends on {certificate.expires:%Y-%m-%d}: consortium renew")
    return federation


def renew(federation: Federation, names: Collection[str], *, within: timedelta, tell: Tell = _silent) -> Federation:
    """Give new certificates and keys to those named, or, if nobody is, to all whose own end within that time.

    The old ones stay good until they end: a hospital changes when it can. Raises `ConfigInvalid` for who is not in it.
    """
    consortium, out = federation.consortium, federation.root
    for name in names:
        federation.kit(name)
    issued = Issued.read(authority.state_file(consortium, out / ".authority"))
    due = [name for name in consortium.participants if issued.due(name, within)]
    return provision(consortium, out, anew=names or due, tell=tell)


def revoke(federation: Federation, names: Collection[str], tell: Tell = _silent) -> Federation:
    """End the present certificates of those named, for good; who still is in the federation gets another, with a new key.

    The server gets another too: what it gave to whoever registered with the old ones ends with its own.
    Raises `ConfigInvalid` for who has no certificate, and for the server: hospitals ask nobody whether it is good.
    """
    consortium, private = federation.consortium, federation.root / ".authority"
    if SERVER in names:
        raise ConfigInvalid(
            "the server's certificate cannot be revoked: hospitals believe it until it ends",
            remedy="Move the server to another host name (`server.host`), or provision a new federation with --out.",
        )
    state = authority.state_file(consortium, private)
    issued = Issued.read(state)
    if issued.root is not None:  # without it, provisioning says what to do
        _require_known(names, issued)
        revoke_present(private, issued, names)
    return provision(consortium, federation.root, anew=[*names, SERVER], tell=tell)


def _require_known(names: Collection[str], issued: Issued) -> None:
    known = [name for name in issued.participants if name != SERVER]
    for name in names:
        if name not in known:
            raise ConfigInvalid(f"{name!r} has no certificate of this federation", remedy=f"One of: {', '.join(known)}.")


def _with_port(consortium: Consortium, out: Path) -> Consortium:
    """Give the server of port 0 a free port, or the one it was given before."""
    if consortium.server.port != 0:
        return consortium
    try:
        port = Federation.load(out).consortium.server.port
    except NotReady:
        port = ports.free_port()
    return consortium.model_copy(update={"server": consortium.server.model_copy(update={"port": port})})
