"""Keep one long-running job running: NVFlare resumes none, so after a crash of server or job somebody must submit it again.

The server's list is not believed: a job whose server was killed stays listed as RUNNING for ever (NVFlare 2.9). What
counts is which job processes the server has.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from silo_app.errors import JobFailed, ServerUnreachable
from silo_app.flare.console import Console, JobState, require_job, stage_job

__all__ = ["keep", "step"]

_log = logging.getLogger(__name__)

_EVERY_S = 2.0
_MISSES = 3
"""So many looks in a row may a job be listed and not be there: it starts, or it ends."""
_STARTING = ("SUBMITTED", "APPROVED", "DISPATCHED")


class Watch:
    """What was seen of the job so far."""

    def __init__(self) -> None:
        self.missed: dict[str, int] = {}

    def living(self, jobs: Sequence[JobState], running: set[str]) -> list[str]:
        """Return the ids, newest first, of the jobs that run or are about to."""
        listed = [state for state in jobs if not state.over]
        self.missed = {
            state.job: 0 if state.job in running else self.missed.get(state.job, 0) + 1
            for state in listed
            if state.status not in _STARTING
        }
        return [state.job for state in listed if self.missed.get(state.job, 0) < _MISSES]


def step(console: Console, folder: Path, watch: Watch, tell: Callable[[str], None]) -> None:
    """Look once: submit the job if it is not there, and end all but the newest if it is there more than once."""
    name = folder.name
    jobs = [state for state in console.jobs(limit=200) if state.name == name]
    living = watch.living(jobs, console.running())
    if not living:
        with stage_job(folder, {}) as staged:
            tell(f"{name} was not running: submitted as {console.submit(staged)}")
    for job in living[1:]:
        if job in console.running():
            console.abort(job)
            tell(f"{name} ran twice: ended {job}, kept {living[0]}")


def keep(
    admin: Path,
    folder: Path,
    *,
    tell: Callable[[str], None],
    ended: Callable[[float], bool],
    every_s: float = _EVERY_S,
) -> None:
    """Keep the job in `folder` running until `ended(seconds)`, which waits so long, returns true.

    Raises `CertificateMissing` for a kit that is none, and as `require_job` does; a server that is away is waited for.
    """
    require_job(folder, {})
    watch, silent = Watch(), False
    while not ended(0.0):
        try:
            with Console.open(admin) as console:
                silent = False
                while True:
                    step(console, folder, watch, tell)
                    if ended(every_s):
                        return
        except ServerUnreachable as error:
            if not silent:
                tell(f"the server does not answer: {error.problem}")
            silent = True
        except JobFailed as error:
            tell(error.problem)
        except Exception as error:  # noqa: BLE001  (NVFlare raises many kinds when a session ends with its server)
            _log.info("the session ended: %s", type(error).__name__)
        ended(every_s)
