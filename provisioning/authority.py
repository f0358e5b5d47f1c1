"""The federation's certificate authority: NVFlare's provisioning, over a state in a private folder that outlives every run.

`<federation>/.authority/` holds the root's private key and what was issued (NVFlare's `state/cert.json`). As long as it
is kept, provisioning again issues only what is new: no hospital's kit becomes invalid because another joined. NVFlare
works on a copy: it writes its state in place, and a run that is cut off there would cost everybody the root's key.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from provisioning.consortium import SERVER, Consortium
from provisioning.issued import Issued
from silo_app import durable
from silo_app.errors import ConfigInvalid, NotReady, ProcessFailed

__all__ = ["issue", "nvflare_command", "project", "state_file"]

_PRIVATE_UMASK = 0o077


def nvflare_command() -> list[str]:
    """Return the `nvflare` command of the environment that this runs in."""
    beside = Path(sys.executable).parent / "nvflare"
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "nvflare.cli"]


def project(consortium: Consortium) -> dict[str, Any]:
    """Return NVFlare's `project.yml` of a federation."""
    server = consortium.server
    sites = [{"name": consortium.anchor, "org": server.organisation}]
    sites += [{"name": silo.name, "org": silo.org} for silo in consortium.silos]
    people = [{"name": p.name, "org": p.organisation, "role": p.role} for p in consortium.people]
    listener = {"name": SERVER, "org": server.organisation, "default_host": server.host, "fed_learn_port": server.port}
    return {
        "api_version": 3,
        "name": consortium.name,
        "description": f"Siloscope federation {consortium.name}",
        "participants": [
            listener | {"type": "server"},
            *(site | {"type": "client"} for site in sites),
            *(person | {"type": "admin"} for person in people),
        ],
        "builders": [
            {"path": "nvflare.lighter.impl.workspace.WorkspaceBuilder"},
            {
                "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
                "args": {"config_folder": "config", "scheme": server.scheme},
            },
            {
                "path": "nvflare.lighter.impl.cert.CertBuilder",
                "args": {"root_valid_days": consortium.certificates.root_valid_days},
            },
            {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
        ],
    }


def state_file(consortium: Consortium, authority: Path) -> Path:
    """Return where the root's key and everybody's certificates are kept."""
    return authority / consortium.name / "state" / "cert.json"


@contextmanager
def issue(consortium: Consortium, authority: Path, *, anew: Collection[str] = ()) -> Iterator[Path]:
    """Run NVFlare's provisioning for `authority`; give the folder of the issued kits, which is gone after the block.

    Who has a certificate that says what the consortium says keeps it, but those in `anew` get new ones, with new keys.
    Raises `NotReady` while another runs in the same folder.
    """
    state = state_file(consortium, authority)
    _refuse_without_root(authority, Issued.read(state))
    durable.private_folder(authority)
    making = authority / ".making"
    with _alone(authority):
        issued = Issued.read(state)
        _refuse_another_root(consortium, authority, state, issued)
        _discard(making, state.parent.parent)
        try:
            yield _made(consortium, issued.without({*issued.differing(consortium), *anew}), making, state)
        finally:
            _discard(making, state.parent.parent)


@contextmanager
def _alone(authority: Path) -> Iterator[None]:
    """Keep others out: of two that issue at once, one would hand out certificates that the state does not know."""
    descriptor = os.open(authority, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not durable.try_lock(descriptor):
            raise NotReady(
                f"another `consortium` command is provisioning here ({authority.parent})",
                remedy="Wait for its end, then try again.",
            )
        yield
    finally:
        os.close(descriptor)


def _made(consortium: Consortium, keep: Issued, making: Path, state: Path) -> Path:
    """Let NVFlare issue what is missing in `making`, keep its new state, and return its folder of kits."""
    workspace = making / consortium.name
    for folder in (making, workspace, workspace / "state", state.parent.parent, state.parent):
        durable.private_folder(folder)
    if keep.content:
        durable.write_text(workspace / "state" / "cert.json", json.dumps(keep.content))
    durable.write_text(making / "project.yml", yaml.safe_dump(project(consortium), sort_keys=False))
    _run(making)
    durable.write_bytes(state, (workspace / "state" / "cert.json").read_bytes())
    durable.write_bytes(making.parent / "project.yml", (making / "project.yml").read_bytes())
    return next(workspace.glob("prod_*"))


def _refuse_another_root(consortium: Consortium, authority: Path, state: Path, issued: Issued) -> None:
    others = [file.parent.parent.name for file in authority.glob("*/state/cert.json") if file != state]
    if others:
        raise ConfigInvalid(
            f"this folder belongs to the federation {others[0]!r}, the configuration is of {consortium.name!r}",
            where=str(authority.parent),
            remedy="Choose another folder with --out, or keep the name: another name means new keys for everybody.",
        )
    if issued.root is None:
        return
    if issued.root.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigInvalid(
            f"the root certificate expired on {issued.root.not_valid_after_utc:%Y-%m-%d}: it can issue nothing more",
            where=str(authority.parent),
            remedy="Provision into a new folder with --out: a new root means new kits for everybody.",
        )
    days = (issued.root.not_valid_after_utc - issued.root.not_valid_before_utc).days
    wanted = consortium.certificates.root_valid_days
    if days != wanted:
        raise ConfigInvalid(
            f"certificates.root_valid_days is {wanted}, but the root certificate was made for {days} days",
            where=str(authority.parent),
            remedy=f"Set it to {days}: a root with another life would be a new root, with new kits for everybody.",
        )


def _refuse_without_root(authority: Path, issued: Issued) -> None:
    """Refuse kits of another root, or of one whose key lies offline, before a folder is made where it belongs."""
    if issued.root is None and any(authority.glob("*/state/cert.json")):
        return  # a federation of another name, which is refused as that
    handed_out = _roots(authority.parent)
    if handed_out and issued.root not in handed_out:
        raise ConfigInvalid(
            "the kits here are of a root whose key is not here",
            where=str(authority),
            remedy="Put .authority back from where it is kept, or choose another folder with --out: a new root would mean "
            "new keys for everybody.",
        )


def _roots(out: Path) -> list[x509.Certificate]:
    """Return the root certificates of the kits; one that is damaged is put back."""
    found = []
    for file in sorted(out.glob("*/startup/rootCA.pem")):
        with contextlib.suppress(ValueError):
            found.append(x509.load_pem_x509_certificate(file.read_bytes()))
    return found


def _run(authority: Path) -> None:
    command = [*nvflare_command(), "provision", "-p", "project.yml", "-w", ".", "--force"]
    done = subprocess.run(
        command,
        cwd=authority,
        umask=_PRIVATE_UMASK,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProcessFailed(
            f"`nvflare provision` ended with {done.returncode}:\n{done.stdout.strip()[-2000:]}",
            where=str(authority),
            remedy="Correct what it names; nothing was handed out.",
        )


def _discard(making: Path, workspace: Path) -> None:
    # Staged kits hold private keys; each was moved to its participant's kit, the state keeps what must be kept.
    for folder in (making, *workspace.glob("prod_*")):  # the latter were staged by earlier versions, and cut off
        shutil.rmtree(folder, ignore_errors=True)
