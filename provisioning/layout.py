"""Startup kits: from what NVFlare issued to `<federation>/<participant>/`, hardened, at paths that never change.

A file that is already right is not touched. A file of `local/` that its owner edited is kept: the owner decides. What
provisioning itself wrote is recorded by digest, so the two can be told apart.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from provisioning import site_policy
from provisioning.consortium import SERVER, Consortium, SiloEntry
from silo_app import durable
from silo_app.config import read_yaml
from silo_app.errors import ConfigInvalid
from silo_app.job_files import jobs_folder

__all__ = ["SERVER_LIST", "Tell", "lay_out", "link_jobs"]

Tell = Callable[[str], None]

SERVER_LIST = "consortium.json"
"""In the server's `local/`: who is let in, which silos the search broker asks, and which site carries its job."""

_OWNER_ONLY_SCRIPT = 0o700
_DEFAULTS_REPLACED = ("resources.json.default", "authorization.json.default")
_SILO_HEADER = """\
# Configuration of this silo. It was made with the startup kit; from then on it belongs to the hospital:
# provisioning never changes it again. docs/ref-silo.md lists every key.
"""
_PYTHON_LOOKUP = """
# Which Python: that of the activated environment, or SILO_PYTHON.
PYTHON="${SILO_PYTHON:-python3}"
if ! "$PYTHON" -c "import nvflare, silo_app" 2> /dev/null; then
  echo "$PYTHON has no siloscope: activate the environment it is installed in, or set SILO_PYTHON." >&2
  exit 1
fi
"""


@dataclass(frozen=True)
class _File:
    content: bytes
    mode: int = durable.PRIVATE
    owned_by_site: bool = False


def lay_out(
    consortium: Consortium, staged: Path, out: Path, *, with_gateway: bool, revoked: Sequence[str], tell: Tell
) -> None:
    """Write every participant's kit under `out`, touching only what changed; `tell` hears one line for each change.

    `revoked` are the serial numbers of certificates that the server lets in no more.
    """
    record = out / ".authority" / "handed-out.json"
    written = _handed_out(record)
    for participant in consortium.participants:
        files = _files(consortium, staged / participant, out / participant, with_gateway=with_gateway)
        if participant == SERVER:
            files = {**files, f"local/{SERVER_LIST}": _json_file(_members(consortium, revoked), owned_by_site=False)}
        _write_kit(out, participant, files, written, tell)
        durable.write_text(record, json.dumps(written, indent=1))
    for silo in consortium.silos:
        _write_silo_yaml(silo, out / silo.name, tell)
    for person in consortium.people:
        link_jobs(out / person.name)
    _tell_of_leavers(consortium, out, tell)


def _handed_out(record: Path) -> dict[str, str]:
    """Return the digests of what the kits were given, by path. Raises `ConfigInvalid` if nobody can tell any more."""
    if not record.is_file():
        return {}
    try:
        return {str(path): str(digest) for path, digest in json.loads(record.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError):
        raise ConfigInvalid(
            "this list of what kits were given is damaged",
            where=str(record),
            remedy="Restore it from the backup of .authority. Without one, move it away: all that lies in the kits' local "
            "folders is then taken for their owners' own, and kept.",
        ) from None


def _files(consortium: Consortium, staged: Path, kit: Path, *, with_gateway: bool) -> Mapping[str, _File]:
    files: dict[str, _File] = {}
    for path in sorted(path for path in staged.rglob("*") if path.is_file()):
        name = path.relative_to(staged).as_posix()
        if path.name in _DEFAULTS_REPLACED and (staged / "startup" / "sub_start.sh").is_file():
            continue  # a site that lost its own file would fall back to these
        mode = _OWNER_ONLY_SCRIPT if path.suffix == ".sh" else durable.PRIVATE
        files[name] = _File(_startup_content(path, consortium), mode)
    return files | _local_files(consortium, staged, kit, with_gateway=with_gateway)


def _local_files(consortium: Consortium, staged: Path, kit: Path, *, with_gateway: bool) -> dict[str, _File]:
    if kit.name not in {SERVER, *consortium.sites}:
        return {}
    default = json.loads((staged / "local" / "resources.json.default").read_text())
    rights = json.loads((staged / "local" / "authorization.json.default").read_text())
    made: dict[str, Any] = {"authorization.json": site_policy.authorization(rights)}
    if kit.name == SERVER:
        made["resources.json"] = site_policy.server_resources(default, home=consortium.server.home or kit.resolve())
    else:
        gateway = with_gateway and kit.name in consortium.silo_names
        made["resources.json"] = site_policy.site_resources(default, gateway=gateway)
    return {f"local/{name}": _json_file(content, owned_by_site=True) for name, content in made.items()}


def _members(consortium: Consortium, revoked: Sequence[str]) -> dict[str, Any]:
    people = [person.name for person in consortium.people]
    members = {"silos": list(consortium.silo_names), "anchor": consortium.anchor, "people": people}
    return {**members, "revoked": list(revoked)}


def _json_file(content: Mapping[str, Any], *, owned_by_site: bool) -> _File:
    return _File((json.dumps(content, indent=2) + "\n").encode(), owned_by_site=owned_by_site)


def _startup_content(path: Path, consortium: Consortium) -> bytes:
    content = path.read_bytes()
    if path.name in {"sub_start.sh", "fl_admin.sh"}:
        shebang, _, script = content.decode().partition("\n")
        return (shebang + "\n" + _PYTHON_LOOKUP + script.replace("python3 ", '"$PYTHON" ')).encode()
    if path.name == "fed_server.json":
        # NVFlare listens on loopback alone if this host is the loopback, and on every address if not.
        settings = json.loads(content)
        server = consortium.server
        settings["servers"][0]["service"]["target"] = f"{server.host}:{server.port}"
        return (json.dumps(settings, indent=2) + "\n").encode()
    return content


def _write_kit(out: Path, participant: str, files: Mapping[str, _File], written: dict[str, str], tell: Tell) -> None:
    kit = out / participant
    new = not kit.is_dir()
    for folder in (kit, kit / "startup", kit / "local", kit / "transfer"):
        durable.private_folder(folder)
    for name, file in files.items():
        key = f"{participant}/{name}"
        found = (kit / name).read_bytes() if (kit / name).is_file() else None
        edited = found is not None and written.get(key) != _digest(found)
        if found == file.content:
            (kit / name).chmod(file.mode)
        elif edited and file.owned_by_site:
            tell(f"{participant}: kept {name}, which was edited there (provisioning would write another)")
            continue
        else:
            durable.write_bytes(kit / name, file.content, mode=file.mode)
            if not new:
                tell(f"{participant}: {'added' if found is None else 'changed'} {name}")
        written[key] = _digest(file.content)
    if new:
        tell(f"{participant}: made")


def _write_silo_yaml(silo: SiloEntry, kit: Path, tell: Tell) -> None:
    file = kit / "local" / "silo.yaml"
    wanted = silo.config().model_dump(mode="json", exclude={"home"})
    if not file.is_file():
        durable.write_text(file, _SILO_HEADER + yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
        return
    given = silo.model_dump(exclude_none=True, exclude_defaults=True, exclude={"organisation"})
    try:
        found = read_yaml(file) or {}
    except ConfigInvalid as error:  # the hospital's to mend; the others' kits do not wait for it
        tell(f"{silo.name}: kept local/silo.yaml, which cannot be read: {error.problem}")
        return
    for key in given:
        if isinstance(found, dict) and found.get(key) != wanted[key]:
            tell(f"{silo.name}: kept local/silo.yaml, which has another {key} than consortium.yaml")


def link_jobs(admin_kit: Path) -> None:
    """Make `transfer/jobs` of an administrator's kit lead to the jobs, so that `submit_job jobs/train` works."""
    link = admin_kit / "transfer" / "jobs"
    target = jobs_folder()
    if link.is_symlink() and link.readlink() == target:
        return
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(target)


def _tell_of_leavers(consortium: Consortium, out: Path, tell: Tell) -> None:
    kits = {path.parent.name for path in out.glob("*/startup") if not path.parent.name.startswith(".")}
    for name in sorted(kits - set(consortium.participants)):
        tell(f"{name}: no longer in the federation's file; its kit is left, and the server lets it in no more")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
