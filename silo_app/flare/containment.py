"""What one site says or sends ends no job for the others: three places where NVFlare 2.9 would let it.

A site may report a job as failed (`fed_server.py`, `process_job_failure`), give a result with a code for which the server
ends the job (`server_runner.py`, `ABORT_RETURN_CODES`), or send one that cannot be decoded, for which the job's process on
the server ends itself (`cell.py`, `Adapter.call`). Our sites do none of it; one that means harm, or is broken, may. These
are internals of NVFlare; tests/flare/test_containment.py is the contract that they keep.
"""

import logging
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.fuel.f3.cellnet import cell as cellnet
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, MessageHeaderKey
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import JobFailureMsgKey

__all__ = ["JobReports", "contain"]

_log = logging.getLogger(__name__)


class JobReports(FLComponent):  # type: ignore[misc]
    """In the server's parent process: takes a site's word that a job failed as its word about its own part of it.

    The server then waits for that site no more; whether the job goes on without it is for the job to decide.
    """

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Stand before NVFlare's own listener once the server is up."""
        if event_type != EventType.SYSTEM_START:
            return
        server = fl_ctx.get_engine().server

        def reported(request: Message) -> Any:
            return server.process_job_failure(_noted(request))

        server.cell.register_request_cb(CellChannel.SERVER_MAIN, CellChannelTopic.REPORT_JOB_FAILURE, reported)


def contain(fl_ctx: FLContext) -> None:
    """In a job's process on the server, before it runs: a site's result costs at most that site's part."""
    fl_ctx.get_prop(FLContextKey.RUNNER).ABORT_RETURN_CODES = ()  # the task gets it, and takes it as a refusal
    cellnet._is_server_job_cell = _never  # noqa: SLF001  (then what is not decoded is dropped)


def _noted(request: Message) -> Message:
    """Return a site's report with a code of which the server takes note, and nothing more."""
    payload = request.payload
    if isinstance(payload, dict) and JobFailureMsgKey.CODE in payload:
        _log.warning("%s reports that its part of a job failed", request.get_header(MessageHeaderKey.ORIGIN))
        request.payload = payload | {JobFailureMsgKey.CODE: JobReturnCode.UNKNOWN}
    return request


def _never(_my_info: Any) -> bool:
    return False
