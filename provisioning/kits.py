"""Startup kits: NVFlare makes certificates and scripts, we add what makes a site a silo and take away what leaks.

Layout of the output folder:

    <out>/consortium.json     what was provisioned (public)
    <out>/.authority/         NVFlare's provisioning state with the root's private key (0700): back it up, keep it offline
    <out>/<participant>/      one startup kit each, at a path that does not change

Provisioning again keeps the root and every kit that exists, and makes only what is new.
"""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from provisioning.consortium import Consortium, SiloEntry
from silo_app import durable
from silo_app.errors import ConfigInvalid, NotReady, ProcessFailed

__all__ = ["FACTS", "Facts", "jobs_folder", "provision"]

FACTS = "consortium.json"
_AUTHORITY = ".authority"
_ALLOWED_CLASSES = ["silo_app.flare."]
_LEAKING_COMPONENTS = {"site_log_streamer", "log_receiver"}
"""They send a site's log files to the server (NVFlare 2.9's defaults); a log may tell about patients."""

_OPERATOR_RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate")

Facts = dict[str, Any]


def provision(consortium: Consortium, out: Path) -> Facts:
    """Make or complete the kits in `out` and return the facts. Raises `ConfigInvalid`, `ProcessFailed`."""
    out.mkdir(parents=True, exist_ok=True)
    known = _known(out)
    if known and known["name"] != consortium.name:
        raise ConfigInvalid(
            f"{out} holds the consortium {known['name']!r}, not {consortium.name!r}",
            remedy="Choose another folder with --out, or keep the name.",
        )
    port = known["server"]["port"] if known else consortium.server.port or _free_port()
    made = _run_nvflare(consortium, port, durable.private_folder(out / _AUTHORITY))
    facts = _facts(consortium, port)
    for name in _participants(facts):
        kit = out / name
        if not kit.exists():
            shutil.copytree(made / name, kit)
    _harden(consortium, facts, out)
    durable.write_text(out / FACTS, json.dumps(facts, indent=2), mode=durable.SHARED)
    return facts


def jobs_folder() -> Path:
    """Return the folder of jobs: the checkout's if this runs from one, else the installed one."""
    checkout = Path(__file__).resolve().parent.parent / "jobs"
    folder = checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "siloscope" / "jobs"
    if not folder.is_dir():
        raise NotReady("the jobs folder is not installed", where=str(folder), remedy="Install siloscope again.")
    return folder


def _known(out: Path) -> Facts | None:
    file = out / FACTS
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def _facts(consortium: Consortium, port: int) -> Facts:
    return {
        "name": consortium.name,
        "server": {"name": consortium.server.host, "port": port, "scheme": consortium.server.scheme},
        "anchor": consortium.anchor,
        "silos": [{"name": s.name, "display_name": s.display_name or s.name} for s in consortium.silos],
        "researchers": [person.name for person in consortium.researchers],
        "operator": consortium.operator.name,
        "organisations": {s.name: _organisation(s) for s in consortium.silos} | {consortium.anchor: "coordinator"},
    }


def _participants(facts: Facts) -> list[str]:
    silos = [silo["name"] for silo in facts["silos"]]
    return [facts["server"]["name"], facts["anchor"], *silos, *facts["researchers"], facts["operator"]]


def _run_nvflare(consortium: Consortium, port: int, authority: Path) -> Path:
    project = authority / "project.yml"
    durable.write_text(project, yaml.safe_dump(_project(consortium, port), sort_keys=False))
    command = [sys.executable, "-m", "nvflare.cli", "provision", "-p", str(project), "-w", str(authority)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=authority)
    kits = sorted((authority / consortium.name).glob("prod_*"))
    if result.returncode != 0 or not kits:
        raise ProcessFailed(
            f"nvflare provision failed: {(result.stdout + result.stderr)[-2000:].strip()}",
            remedy="Correct the consortium file; nothing of the existing kits was changed.",
        )
    for secret in authority.rglob("cert.json"):
        secret.chmod(durable.PRIVATE)
    for old in kits[:-1]:
        shutil.rmtree(old)
    return kits[-1]


def _project(consortium: Consortium, port: int) -> dict[str, Any]:
    people = [(p, p.role) for p in (*consortium.researchers, consortium.operator)]
    server: dict[str, Any] = {"name": consortium.server.host, "type": "server", "org": "coordinator"}
    server |= {"fed_learn_port": port, "admin_port": port}
    sites = [{"name": consortium.anchor, "type": "client", "org": "coordinator"}]
    sites += [{"name": s.name, "type": "client", "org": _organisation(s)} for s in consortium.silos]
    admins = [{"name": p.name, "type": "admin", "org": p.organisation, "role": role} for p, role in people]
    days = {"root_valid_days": consortium.certificates.root_valid_days}
    return {
        "api_version": 3,
        "name": consortium.name,
        "description": "made by `consortium provision`",
        "participants": [server, *sites, *admins],
        "builders": [
            {"path": "nvflare.lighter.impl.workspace.WorkspaceBuilder"},
            {
                "path": "nvflare.lighter.impl.static_file.StaticFileBuilder",
                "args": {"config_folder": "config", "scheme": consortium.server.scheme},
            },
            {"path": "nvflare.lighter.impl.cert.CertBuilder", "args": days},
            {"path": "nvflare.lighter.impl.signature.SignatureBuilder"},
        ],
    }


def _harden(consortium: Consortium, facts: Facts, out: Path) -> None:
    server = out / facts["server"]["name"]
    members = {"silos": [silo["name"] for silo in facts["silos"]], "anchor": facts["anchor"]}
    _write_resources(server, _server_resources)
    durable.write_text(server / "local" / "consortium.json", json.dumps(members, indent=2))
    _write_resources(out / facts["anchor"], _site_resources)
    for silo in consortium.silos:
        _write_resources(out / silo.name, _silo_resources)
        _write_silo_yaml(out / silo.name, silo)
    for name in (*facts["researchers"], facts["operator"]):
        _link_jobs(out / name)
    for name in _participants(facts):
        _deny_code(out / name)
        _make_private(out / name)


def _organisation(silo: SiloEntry) -> str:
    return silo.organisation or silo.name.replace("-", "_")


def _write_resources(kit: Path, change: Any) -> None:
    """Write `local/resources.json` from NVFlare's default once; afterwards the site owns it."""
    file = kit / "local" / "resources.json"
    if file.exists():
        return
    content = json.loads((kit / "local" / "resources.json.default").read_text(encoding="utf-8"))
    content["class_allow_list"] = _ALLOWED_CLASSES
    content["allow_log_streaming"] = False
    content["components"] = [c for c in content["components"] if c["id"] not in _LEAKING_COMPONENTS]
    change(content, kit)
    durable.write_text(file, json.dumps(content, indent=2))


def _site_resources(content: dict[str, Any], kit: Path) -> None:
    """Add nothing: an anchor needs nothing of its own."""
    del content, kit


def _silo_resources(content: dict[str, Any], kit: Path) -> None:
    del kit
    content["components"].append({"id": "silo_gateway", "path": "silo_app.flare.gateway.SiloGateway", "args": {}})


def _server_resources(content: dict[str, Any], kit: Path) -> None:
    """Keep jobs and snapshots in the server's own folder: NVFlare's default is one folder in /tmp for all consortia."""
    content["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(kit.resolve() / "snapshots")
    for component in content["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(kit.resolve() / "jobs-storage")


def _write_silo_yaml(kit: Path, silo: SiloEntry) -> None:
    """Write the silo's first configuration; once there, it belongs to the hospital and is not touched again."""
    file = kit / "local" / "silo.yaml"
    if file.exists():
        return
    content = silo.model_dump(mode="json", exclude={"organisation"}, exclude_defaults=True)
    for section in ("labels",):
        if section in content:
            content[section] = {"kind": getattr(silo, section).kind, **content[section]}
    text = yaml.safe_dump({"name": silo.name, **content}, sort_keys=False, allow_unicode=True)
    durable.write_text(file, "# This file belongs to the hospital: docs/how-to-run-a-silo.md\n" + text)


def _link_jobs(kit: Path) -> None:
    link = kit / "transfer" / "jobs"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink() and not link.exists():
        link.symlink_to(jobs_folder())


def _deny_code(kit: Path) -> None:
    """Refuse jobs that bring code, whoever submits them."""
    default = kit / "local" / "authorization.json.default"
    file = kit / "local" / "authorization.json"
    if not default.is_file() or file.exists():
        return
    content = json.loads(default.read_text(encoding="utf-8"))
    permissions = content["permissions"]
    permissions["project_admin"] = dict.fromkeys(_OPERATOR_RIGHTS, "any")
    for rights in permissions.values():
        rights |= {"byoc": "none", "shell_commands": "none"}  # a shell command reads a site's files
    durable.write_text(file, json.dumps(content, indent=2))


def _make_private(kit: Path) -> None:
    kit.chmod(0o700)
    for file in _files(kit, "startup", "local"):
        executable = file.suffix == ".sh"
        file.chmod(0o700 if executable else durable.PRIVATE)


def _files(kit: Path, *folders: str) -> Iterable[Path]:
    for folder in folders:
        yield from (file for file in (kit / folder).glob("*") if file.is_file())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
