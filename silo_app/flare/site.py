"""What an NVFlare process knows about the silo in which it runs: the kit, and refusals as replies."""

import logging
from pathlib import Path

from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply

from silo_app.errors import MessageInvalid, SiloscopeError
from silo_app.flare import words
from silo_app.flare.consortium_file import read_members

_log = logging.getLogger(__name__)


def kit_of(fl_ctx: FLContext) -> Path:
    """Return the startup kit of this process's participant: the root of NVFlare's workspace."""
    return Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir()).resolve()


def job_folder(fl_ctx: FLContext) -> Path:
    """Return the folder that NVFlare keeps for the running job, in this participant's workspace."""
    workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
    return Path(workspace.get_run_dir(fl_ctx.get_job_id())).resolve()


def rounds_folder(fl_ctx: FLContext) -> Path:
    """Return where the server keeps the closed rounds of trainings; NVFlare moves a job's own folder away at its end."""
    return kit_of(fl_ctx) / "store" / "rounds"


def silos_of(fl_ctx: FLContext) -> list[str]:
    """Return the silos that take part in the running job: its sites without the anchor; for the server only."""
    members = read_members(kit_of(fl_ctx))
    return [site.name for site in fl_ctx.get_engine().get_clients() if site.name in members.silos]


def refusal(error: SiloscopeError) -> Shareable:
    """Return a reply that carries the error's code and public sentence; its own text stays in this silo's log."""
    _log.error("%s: %s", error.code, error)
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply[words.REFUSAL] = {"code": error.code, "public": error.public}
    return reply


def unknown_task(name: str) -> Shareable:
    """Return the refusal of a task that this silo does not know; NVFlare's own code for that would end everybody's job."""
    return refusal(
        MessageInvalid(
            f"this silo does not know the task {name}", remedy="Install the version of siloscope that the server has."
        )
    )


def failure() -> Shareable:
    """Return the reply for an error that is our bug; the traceback stays in this silo's log."""
    _log.exception("unexpected error")
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply[words.REFUSAL] = {"code": "internal", "public": "An unexpected error; the silo's log has the traceback."}
    return reply
