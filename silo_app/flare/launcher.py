"""How a silo starts a job's process: as NVFlare does, but the death of that process costs this silo, not everybody.

NVFlare 2.9 reports a job process that was killed (by a signal, or for memory) as an exception of the job, and its server
then fails the job at all sites (`fed_server.py`, `process_job_failure`). Here such an end is reported as unknown, which
the server notes and nothing more; the rounds notice by themselves that the silo is gone.
"""

from typing import Any

from nvflare.apis.job_launcher_spec import JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle

__all__ = ["SiloJobLauncher"]


class SurvivableHandle(ProcessHandle):  # type: ignore[misc]
    """A job process whose end by a signal is nobody else's failure."""

    def poll(self) -> Any:
        """Return NVFlare's code for the process's end; UNKNOWN while it runs, and if a signal ended it."""
        code = self.adapter.poll()
        return JobReturnCode.UNKNOWN if code is not None and code < 0 else super().poll()


class SiloJobLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """NVFlare's launcher of processes, with survivable ends."""

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: Any) -> Any:
        """Start the job's process."""
        return SurvivableHandle(process_adapter=super().launch_job(job_meta, fl_ctx).adapter)
