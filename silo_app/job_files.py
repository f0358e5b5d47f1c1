"""A job's folder as it lies on disk: where ours are, and the settings in one; nothing of NVFlare is needed to read them."""

import json
import sys
from pathlib import Path
from typing import Any

from silo_app.errors import ConfigInvalid, NotReady

__all__ = ["SERVER_FILE", "arguments_of", "jobs_folder", "read_server_file", "workflow_of"]

SERVER_FILE = Path("app") / "config" / "config_fed_server.json"
"""In a job's folder: what the server runs, and with which arguments."""


def jobs_folder() -> Path:
    """Return the folder of our jobs: the checkout's if this runs from one, else the installed one. Raises `NotReady`."""
    checkout = Path(__file__).resolve().parent.parent / "jobs"
    folder = checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "siloscope" / "jobs"
    if not folder.is_dir():
        raise NotReady("the jobs folder is not installed", where=str(folder), remedy="Install siloscope again.")
    return folder


def read_server_file(folder: Path) -> dict[str, Any]:
    """Return what a job has the server do. Raises `ConfigInvalid` if that cannot be read."""
    file = folder / SERVER_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _invalid(file, "the job has no such file") from None
    except (OSError, ValueError) as error:
        raise _invalid(file, f"it cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise _invalid(file, "it is no object")
    return content


def workflow_of(content: dict[str, Any]) -> str:
    """Return the class of the first workflow in a server's file, or "" if there is none."""
    first = _first(content)
    return str(first.get("path", "")) if first else ""


def arguments_of(content: dict[str, Any], *, plan: bool | None = None) -> dict[str, Any]:
    """Return the first workflow's settings, to be read or changed in place: its `plan`, or its arguments.

    Without `plan` it is the plan where there is one. Raises `ConfigInvalid` if there is no place for settings.
    """
    first = _first(content)
    arguments = first.setdefault("args", {}) if first is not None else None
    if isinstance(arguments, dict) and (plan or (plan is None and "plan" in arguments)):
        if arguments.get("plan") is None:
            arguments["plan"] = {}
        arguments = arguments["plan"]
    if not isinstance(arguments, dict):
        raise _invalid(SERVER_FILE, "its first workflow has no settings")
    return arguments


def _first(content: dict[str, Any]) -> dict[str, Any] | None:
    workflows = content.get("workflows")
    first = workflows[0] if isinstance(workflows, list) and workflows else None
    return first if isinstance(first, dict) else None


def _invalid(file: Path, problem: str) -> ConfigInvalid:
    return ConfigInvalid(problem, where=str(file), remedy="Correct the job's folder, or take ours: jobs/train, for example.")
