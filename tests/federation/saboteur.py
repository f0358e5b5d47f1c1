"""A site that means harm: a component of its NVFlare process that does what a test writes into a file of its kit.

The site has its certificate and its place in the federation; it says what no honest one does.
"""

import json
import threading
import time
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import make_reply
from nvflare.fuel.common.exit_codes import ProcessExitCode
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, Encoding
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.private.defs import JobFailureMsgKey

from silo_app import durable

COMPONENT = {"id": "saboteur", "path": "tests.federation.saboteur.Saboteur", "args": {}}
ORDERS = "sabotage.json"
DONE = "sabotaged.json"


def sabotage(kit, job, lab):
    """Have the site with this kit try everything against a job; return what was tried."""
    (kit / DONE).unlink(missing_ok=True)
    durable.write_text(kit / ORDERS, job)
    lab.until((kit / DONE).is_file)
    return json.loads((kit / DONE).read_text())


class Saboteur(FLComponent):
    """Waits for orders beside the site's other components."""

    def handle_event(self, event_type, fl_ctx):
        if event_type == EventType.SYSTEM_START:
            kit = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
            cell, name = fl_ctx.get_engine().get_cell(), fl_ctx.get_identity_name()
            threading.Thread(target=self._wait, args=(kit, cell, name), daemon=True).start()

    def _wait(self, kit, cell, name):
        while True:
            if (kit / ORDERS).is_file():
                job = (kit / ORDERS).read_text()
                (kit / ORDERS).unlink()
                tried = {
                    "unsafe": _unsafe(cell, job, name),
                    "undecodable": _undecodable(cell, job),
                    "failed": _failed(cell, job),
                }
                durable.write_text(kit / DONE, json.dumps(tried))
            time.sleep(0.1)


def _failed(cell, job):
    """Report that the job failed here."""
    report = {JobFailureMsgKey.JOB_ID: job, JobFailureMsgKey.CODE: ProcessExitCode.EXCEPTION}
    return _sent(cell, "server", CellChannel.SERVER_MAIN, CellChannelTopic.REPORT_JOB_FAILURE, new_cell_message({}, report))


def _unsafe(cell, job, name):
    """Give a result with a code for which NVFlare ends a job."""
    result, context = make_reply(ReturnCode.UNSAFE_JOB), FLContext()
    context.set_prop(FLContextKey.CURRENT_RUN, job, private=False)
    context.set_prop("__identity_name__", name, private=False)
    result.set_peer_context(context)
    result.set_header(FLContextKey.TASK_NAME, "round")
    return _submitted(cell, job, new_cell_message({}, result))


def _undecodable(cell, job):
    """Give a result that nobody can decode."""
    return _submitted(cell, job, new_cell_message({StreamHeaderKey.PAYLOAD_ENCODING: Encoding.FOBS}, b"\xc1" * 100))


def _submitted(cell, job, message):
    return _sent(cell, f"server.{job}", CellChannel.SERVER_COMMAND, ServerCommandNames.SUBMIT_UPDATE, message)


def _sent(cell, target, channel, topic, message):
    """Return what came back, or why nothing did."""
    try:
        return str(cell.send_request(target=target, channel=channel, topic=topic, request=message, timeout=5).headers)
    except Exception as error:  # noqa: BLE001  (the test reads it)
        return repr(error)
