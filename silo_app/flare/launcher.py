"""How a silo starts a job's process: as NVFlare does, but how that process ends costs this silo, not everybody.

NVFlare 2.9 reports a job process that was killed, or that ended with an error, as a failure of the job, and its server
then ends the job at all sites (`fed_server.py`, `process_job_failure`). Here such an end is reported as unknown, which
the server notes and nothing more; the rounds notice by themselves that the silo is gone.
"""

from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import FLContextKey, FLMetaKey
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle

__all__ = ["SiloJobLauncher", "SurvivableHandle"]


class SurvivableHandle(ProcessHandle):  # type: ignore[misc]
    """A job process whose end is nobody else's failure; `noted` is where it may leave its own word for how it ended."""

    def __init__(self, adapter: Any, noted: Path) -> None:
        super().__init__(process_adapter=adapter)
        self._noted = noted

    def poll(self) -> Any:
        """Return NVFlare's code for a good end; UNKNOWN while the process runs, and for every other end."""
        if not self.adapter.poll():
            return super().poll()
        self._noted.unlink(missing_ok=True)  # NVFlare believes it before the code that it gets from here
        return JobReturnCode.UNKNOWN


class SiloJobLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """NVFlare's launcher of processes, with survivable ends."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: Any) -> Any:
        """Start the job's process."""
        run = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_run_dir(job_meta[JobMetaKey.JOB_ID.value]))
        return SurvivableHandle(super().launch_job(job_meta, fl_ctx).adapter, run / FLMetaKey.PROCESS_RC_FILE)
