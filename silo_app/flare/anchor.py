"""The executor of the anchor: a site beside the server that does nothing, because NVFlare refuses a job without sites.

The search job runs at the server and the anchor only. Were the hospitals its sites, the death of one hospital's job
process would end the search for all (NVFlare 2.9, `fed_server.py`, `process_job_failure`).
"""

from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from silo_app.flare.site import unknown_task


class Anchor(Executor):  # type: ignore[misc]
    """Holds the search job open."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer that there is nothing to do."""
        del shareable, fl_ctx, abort_signal
        return unknown_task(task_name)
