"""What a site lets a job do: NVFlare's resources and rights, hardened. Pure: dictionaries in, dictionaries out.

NVFlare 2.9's own defaults let a lead run code of a job at the hospitals (BYOC), let administrators read files of a
site by shell commands, stream a site's error log to the server, and store jobs under /tmp. Here: jobs carry numbers,
and build only classes of the installed `silo_app.flare`.
"""

from pathlib import Path
from typing import Any

__all__ = [
    "CLASS_ALLOW_LIST",
    "DOOR",
    "GATEWAY",
    "JOB_REPORTS",
    "LAUNCHER",
    "MAX_JOBS",
    "authorization",
    "server_resources",
    "site_resources",
]

CLASS_ALLOW_LIST = ("silo_app.flare.",)
"""What a job's configuration may name. An entry with a final dot allows everything below it, one without allows that
path and what is below (nvflare/app_common/widgets/component_path_authorizer.py)."""

GATEWAY = {"id": "silo_gateway", "path": "silo_app.flare.gateway.SiloGateway", "args": {}}
"""Our component in each silo's NVFlare process: it carries search messages between the server and the index process."""

LAUNCHER = {"id": "process_launcher", "path": "silo_app.flare.launcher.SiloJobLauncher", "args": {}}
"""In place of NVFlare's own launcher: a job process that is killed must not end the job for everybody."""

JOB_REPORTS = {"id": "job_reports", "path": "silo_app.flare.containment.JobReports", "args": {}}
"""Our component in the server's NVFlare process: what a site reports of a job must not end the job for everybody."""

DOOR = {"id": "door", "path": "silo_app.flare.door.Door", "args": {}}
"""Our component in the server's NVFlare process: who left the federation is let in no more, however long its certificate."""

MAX_JOBS = 8
"""Jobs that the server runs beside each other; the search broker holds one for good."""

_STREAMERS = ("site_log_streamer", "log_receiver")

Settings = dict[str, Any]


def site_resources(default: Settings, *, gateway: bool) -> Settings:
    """Return a site's `local/resources.json`, made from NVFlare's default."""
    components = [LAUNCHER if one["id"] == LAUNCHER["id"] else one for one in _without_log_streams(default)]
    return default | {
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": list(CLASS_ALLOW_LIST),
        "allow_log_streaming": False,
        "components": [*components, GATEWAY] if gateway else components,
    }


def server_resources(default: Settings, *, home: Path) -> Settings:
    """Return the server's `local/resources.json`, with its stores inside its own workspace `home`."""
    persistor = default["snapshot_persistor"]
    storage = persistor["args"]["storage"]
    snapshots = storage | {"args": storage["args"] | {"root_dir": str(home / "store" / "snapshots")}}
    return default | {
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": list(CLASS_ALLOW_LIST),
        "snapshot_persistor": persistor | {"args": persistor["args"] | {"storage": snapshots}},
        "components": [
            *(_server_component(component, home) for component in _without_log_streams(default)),
            JOB_REPORTS,
            DOOR,
        ],
    }


def _server_component(component: Settings, home: Path) -> Settings:
    if component["id"] == "job_scheduler":
        return component | {"args": component.get("args", {}) | {"max_jobs": MAX_JOBS}}
    if component["id"] == "job_manager":
        return component | {"args": component["args"] | {"uri_root": str(home / "store" / "jobs")}}
    return component


def _without_log_streams(default: Settings) -> list[Settings]:
    # A site's log may hold file names; it stays at the site.
    return [component for component in default["components"] if component["id"] not in _STREAMERS]


def authorization(default: Settings) -> Settings:
    """Return `local/authorization.json`: NVFlare's rights without a job's own code and without shell commands.

    NVFlare's default gives "any" to the project administrator: a right for everything, BYOC included. It is spelled
    out here, because a right given to "any" cannot be taken back for one thing.
    """
    denied = {"byoc": "none", "shell_commands": "none", "server-predeployed-flwr": "none"}
    everything = dict.fromkeys(("submit_job", "clone_job", "manage_job", "download_job", "view", "operate"), "any")
    permissions = {}
    for role, given in default["permissions"].items():
        rights = given if isinstance(given, dict) else everything
        # NVFlare 2.9 files this command under no category, so nobody has it: who may have the record may have the log.
        permissions[role] = rights | denied | {"get_job_log": rights.get("download_job", "none")}
    return default | {"permissions": permissions}
