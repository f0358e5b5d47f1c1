"""The startup kit: certificates, private files, what the site lets a job do, and the clock that all of it hangs on."""

import json
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from silo_app.config import SiloHome
from silo_app.doctor.checked import Checked, ok, problem, warning
from silo_app.identity import Identity

__all__ = ["certificates", "clock", "private_files", "site_policy"]

SOON = timedelta(days=30)
_RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time."""
_ALLOWED = ["silo_app.flare."]
_SHOWN = 3


def certificates(home: SiloHome, *, now: datetime | None = None) -> Checked:
    """Look at the certificate and the key: whether they fit, are of the kit's root, and how long they live."""
    startup = home.kit / "startup"
    if not startup.is_dir():
        return ok("certificates", "none: this silo is not of a federation")
    identity = Identity.load(home.kit)
    ends = min(identity.certificate.not_valid_after_utc, identity.trust.root.not_valid_after_utc)
    left = ends - (now or datetime.now(UTC))
    seen = f"{identity.name}: valid until {ends:%Y-%m-%d}, {left.days} days"
    if left <= SOON:
        remedy = "Ask the provisioner for a new startup/client.crt (`consortium renew`)."
        return (problem if left <= timedelta(0) else warning)("certificates", seen, remedy)
    return ok("certificates", seen)


def clock(home: SiloHome, *, now: datetime | None = None) -> Checked:
    """Compare the clock with what it cannot be before: this release, and the silo's own files."""
    here = now or datetime.now(UTC)
    files = (home.catalogue, home.audit, home.kit / "startup" / "client.crt", home.kit / "local" / "silo.yaml")
    written = [datetime.fromtimestamp(file.stat().st_mtime, UTC) for file in files if file.is_file()]
    latest = max([_RELEASED, *written])
    if here < latest - timedelta(minutes=5):
        return problem(
            "clock",
            f"it shows {here:%Y-%m-%d %H:%M} UTC, and the silo has files of {latest:%Y-%m-%d %H:%M} UTC",
            "Set the clock, by NTP: certificates, signatures and refused replays depend on it.",
        )
    return ok("clock", f"{here:%Y-%m-%d %H:%M} UTC, and nothing of the silo is of a later time")


def private_files(home: SiloHome) -> Checked:
    """Look for files of the silo, keys and secrets that other accounts may read."""
    open_ones = [path for path in _private(home) if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    if not open_ones:
        return ok("private files", "only this account can read them")
    shown = ", ".join(str(path) for path in open_ones[:_SHOWN])
    more = f" and {len(open_ones) - _SHOWN} more" if len(open_ones) > _SHOWN else ""
    return problem(
        "private files",
        f"other accounts may read or enter {shown}{more}",
        f"Close them: chmod -R go= {home.root}, and chmod 600 every file of a key or a password.",
    )


def _private(home: SiloHome) -> Iterator[Path]:
    """Yield what must be closed: the silo's folder, its files that are not inside closed folders, keys, secrets."""
    if home.root.is_dir():
        yield home.root
        yield from (path for path in home.root.iterdir() if not path.is_symlink())
    yield from (home.kit / "startup").glob("*.key")
    yield from _secrets(home, home.config.model_dump())


def _secrets(home: SiloHome, value: object) -> Iterator[Path]:
    """Yield every file that the configuration names under a key for secrets, wherever it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in {"password_file", "token_file", "key_file"} and inner:
                path = home.resolve(Path(inner))
                if path.exists():
                    yield path
            else:
                yield from _secrets(home, inner)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for inner in value:
            yield from _secrets(home, inner)


def site_policy(home: SiloHome) -> Checked:
    """Look at what NVFlare at this site lets a job do: build our classes, and nothing else; no code of its own."""
    local = home.kit / "local"
    if not (home.kit / "startup" / "fed_client.json").is_file():
        return ok("site policy", "none: no NVFlare runs for this silo")
    try:
        resources = json.loads((local / "resources.json").read_text(encoding="utf-8"))
        rights = json.loads((local / "authorization.json").read_text(encoding="utf-8"))["permissions"]
        wrong = list(_loose(resources, rights))
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError) as error:
        wrong = [f"local/resources.json or local/authorization.json cannot be read ({type(error).__name__})"]
    if wrong:
        return problem("site policy", "; ".join(wrong), "Restore the kit's local folder as the provisioner made it.")
    return ok("site policy", "jobs may build classes of silo_app.flare only, and bring no code")


def _loose(resources: dict[str, object], permissions: dict[str, object]) -> Iterator[str]:
    if resources.get("class_list_enforcement_mode") != "enforce" or resources.get("class_allow_list") != _ALLOWED:
        yield "a job may name other classes than those of silo_app.flare"
    if resources.get("allow_log_streaming") is not False:
        yield "this site's log may be streamed to the server"
    for role, rights in permissions.items():
        if not isinstance(rights, dict) or any(rights.get(one, "any") != "none" for one in ("byoc", "shell_commands")):
            yield f"{role} may bring code or run shell commands"
