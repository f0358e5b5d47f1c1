"""The researcher's way to the server: submit, list, follow, abort and download jobs over NVFlare's own admin protocol."""

import contextlib
import io
import json
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silo_app.encoder.checked_plan import OPTION
from silo_app.encoder.job_record import RECORD_MARK, REJECTED, UNOPENED, void_in
from silo_app.errors import CertificateMissing, InputError, JobFailed, JobUnknown, NotReady, ServerUnreachable
from silo_app.flare.plans import require_sound, with_settings
from silo_app.flare.reach import require_answer
from silo_app.job_files import SERVER_FILE

__all__ = ["Console", "JobState", "records_told", "require_job", "stage_job", "told_of_failure", "told_of_rounds"]

_COMPLETED = "FINISHED:COMPLETED"
_ID_LENGTH = 36
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{7,}")
_ANEW = "Submit it without --resume, or name a job: silo job list."
_POLL_S = 1.0
_ASK_AGAIN_S = 0.1
_PANIC = "Aborting current RUN due to FATAL_SYSTEM_ERROR received:"
"""NVFlare's words in a server's log before the reason for which a controller ended its job."""
_CRITICAL = " - CRITICAL - "
"""And before the one for which NVFlare itself ended a job's process."""
_TOLD = (
    "joined: ",
    "entered: ",
    "may not enter: ",
    "is not in the job: ",
    ": sum of ",
    ": void: ",
    "taken back",
    " kept by ",
)
"""What marks the lines of a training's log that a researcher follows."""


_TAKEN_BACK = re.compile(rf"exchange (\d+): ({UNOPENED}|{REJECTED})")
_NAME_A_JOB = "`silo job list` has the ids; the first 8 digits do where only one job begins so."


@dataclass(frozen=True)
class JobState:
    """One job as the server lists it; `status` is NVFlare's word (SUBMITTED, RUNNING, FINISHED:COMPLETED, ...)."""

    job: str
    name: str
    status: str
    submitted: str
    duration: str

    @property
    def over(self) -> bool:
        """Whether the job has ended, well or not."""
        return self.status.startswith(("FINISHED", "FAILED", "ABANDONED"))


class Console:
    """A session at the server, from the admin kit of one person; use it in a `with` block (it holds a connection)."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    @contextmanager
    def open(cls, kit: Path, *, timeout_s: float = 20.0) -> Iterator["Console"]:
        """Log in with the certificate in `kit`.

        Raises `CertificateMissing` if the kit is not whole, `ServerUnreachable` if nobody answers or lets this person in.
        """
        from nvflare.apis.fl_exception import FLCommunicationError
        from nvflare.fuel.flare_api.api_spec import AuthenticationError, NoConnection
        from nvflare.fuel.flare_api.flare_api import new_secure_session
        from nvflare.fuel.utils.config_service import ConfigService

        user, host, port = _admin_of(kit)
        require_answer(host, port, kit)
        # without a place of its own NVFlare looks for settings in all folders below the one it was started in
        ConfigService.initialize(section_files={}, config_path=[str(kit / "startup")])
        try:
            # the login is retried, because a server that has just come up refuses connections for some seconds
            with _quiet(), _asking_again_soon():
                session = new_secure_session(user, str(kit), timeout=timeout_s, auto_login_max_tries=3)
        except (NoConnection, AuthenticationError) as error:
            raise ServerUnreachable(
                f"cannot log in as {user}: {error}",
                where=str(kit),
                remedy="Is the server running (`consortium status`), and is this kit of the same consortium?",
            ) from None
        except FLCommunicationError:  # it answered, and did not register us
            raise ServerUnreachable(
                f"the server does not let {user} in",
                where=str(kit),
                remedy="Ask the provisioner: was this person taken out of the federation, or this certificate revoked?",
            ) from None
        try:
            yield cls(session)
        finally:
            with contextlib.suppress(Exception):  # a session that is already gone must not hide the real error
                session.close()

    def submit(self, folder: Path) -> str:
        """Submit the job in `folder` and return its id. Raises `JobFailed` with the server's reason."""
        try:
            return str(self._session.submit_job(str(folder.resolve())))
        except Exception as error:  # noqa: BLE001  (NVFlare raises a different class for each reason)
            raise JobFailed(
                f"the server refused the job: {error}",
                where=str(folder),
                remedy=_remedy(error, "Correct the job folder; a job of this federation holds JSON files only, no code."),
            ) from None

    def jobs(self, *, limit: int = 20) -> list[JobState]:
        """Return the newest jobs first."""
        return [_state(meta) for meta in self._session.list_jobs(detailed=True, limit=limit, reverse=True)]

    def named(self, text: str) -> str:
        """Return the id of the job that begins so (8 characters at least). Raises `JobUnknown` if none or several do."""
        start = text.strip().lower()
        if len(start) >= _ID_LENGTH:
            return start
        if not _BEGINNING.fullmatch(start):
            raise JobUnknown(f"{text!r} is no job's id", remedy=_NAME_A_JOB)
        found = [str(meta.get("job_id", "")) for meta in self._session.list_jobs(id_prefix=start)]
        found = [job for job in found if job.startswith(start)]
        if len(found) != 1:
            raise JobUnknown(f"{'more than one job' if found else 'no job'} begins with {start}", remedy=_NAME_A_JOB)
        return found[0]

    def running(self) -> set[str]:
        """Return the ids of the jobs that have a process at the server now, whatever the list says."""
        return {str(job.job_id) for job in self._session.get_system_info().job_info}

    def state(self, job: str) -> JobState:
        """Return one job's state. Raises `JobFailed` if the server does not know it, `ServerUnreachable` if it is away."""
        from nvflare.fuel.flare_api.api_spec import NoConnection

        try:
            return _state(self._session.get_job_meta(job))
        except NoConnection:
            raise ServerUnreachable(
                f"the server went away; what became of job {job} is not known",
                remedy="When it is back, see `silo job list`. A training that ended with it goes on from its last closed "
                "round: silo job submit jobs/train --resume.",
            ) from None
        except Exception as error:  # noqa: BLE001  (as in `submit`)
            raise JobFailed(f"no state of job {job}: {error}", remedy="List the jobs with `silo job list`.") from None

    def unfinished(self, name: str, job: str | None = None, *, tell: Callable[[str], None] = lambda _line: None) -> str:
        """Return the id of the job to resume: `job`, or the newest one called `name` that closed rounds.

        A job whose log has no round with a sum, for a wrong setting perhaps, has nothing to go on with: `tell` hears of it.
        One whose log cannot be read is taken: it may be another person's that closed many rounds, and the server refuses
        one that closed none. Raises `NotReady` if there is none to resume, if it completed, or if it still runs.
        """
        states = [self.state(job)] if job else [state for state in self.jobs(limit=100) if state.name == name]
        for state in states:
            if state.status == _COMPLETED:
                raise NotReady(f"there is no job {job or name} to resume: the last one completed", remedy=_ANEW)
            if not state.over:
                raise NotReady(
                    f"job {state.job} is {state.status}",
                    remedy=f"Wait for its end, or end it: silo job abort {state.job}",
                )
            if job:
                return state.job
            try:
                log = self.log(state.job)
            except JobFailed as error:
                tell(f"{error.problem}; it is taken for one that closed rounds: name another if it is not")
                return state.job
            if any(record["outcome"] == "sum" for record in records_told(log)):
                return state.job
            tell(f"job {state.job} ({state.status}) closed no round: there is nothing of it to resume")
        raise NotReady(f"no job {name} closed a round" if states else f"no job {name} ran yet", remedy=_ANEW)

    def wait(
        self, job: str, *, timeout_s: float, tell: Callable[[JobState], None] | None = None, poll_s: float = _POLL_S
    ) -> JobState:
        """Wait until the job has ended well. Raises `JobFailed` if it ends otherwise or not in time."""
        end = time.monotonic() + timeout_s
        while True:
            state = self.state(job)
            if tell is not None:
                tell(state)
            if state.status == _COMPLETED:
                return state
            if state.over:
                raise JobFailed(
                    f"job {state.name} ({job}) ended as {state.status}{self._reason(job)}",
                    remedy=f"Read why: `silo job log {job}`, and the silos' own logs (`consortium logs NAME`).",
                )
            if time.monotonic() > end:
                raise JobFailed(
                    f"job {state.name} ({job}) is still {state.status} after {timeout_s:.0f} s",
                    remedy=f"Wait longer with --timeout, or end it with `silo job abort {job}`.",
                )
            time.sleep(poll_s)

    def wait_running(self, job: str, *, timeout_s: float) -> None:
        """Wait until a long-running job runs. Raises `JobFailed` if it ends or does not start in time."""
        end = time.monotonic() + timeout_s
        while (state := self.state(job)).status != "RUNNING":
            if state.over or time.monotonic() > end:
                raise JobFailed(
                    f"job {state.name} ({job}) is {state.status} instead of RUNNING",
                    remedy=f"Read why: `silo job log {job}`.",
                )
            time.sleep(_POLL_S)

    def abort(self, job: str) -> None:
        """End a job now. Raises `JobFailed` if it does not run."""
        try:
            self._session.abort_job(job)
        except Exception as error:  # noqa: BLE001  (as in `submit`)
            raise JobFailed(f"cannot abort job {job}: {error}", remedy=_remedy(error, "See `silo job list`.")) from None

    def _reason(self, job: str) -> str:
        """Return ": " and why the job failed, if its log says so."""
        with contextlib.suppress(JobFailed):  # a job that never ran has no log
            reason = told_of_failure(self.log(job))
            return f": {reason}" if reason else ""
        return ""

    def download(self, job: str) -> Path:
        """Fetch the server's record of an ended job and return the folder."""
        try:
            return Path(self._session.download_job_result(job))
        except Exception as error:  # noqa: BLE001  (as in `submit`)
            raise JobFailed(
                f"cannot download job {job}: {error}", remedy=_remedy(error, "A job can be downloaded when it is over.")
            ) from None

    def log(self, job: str) -> str:
        """Return the server's log of a job. Raises `JobFailed` if there is none, or none that this person may read."""
        try:
            result = self._session.get_job_logs(job, target="server")
        except Exception as error:  # noqa: BLE001  (as in `submit`)
            raise JobFailed(f"no log of job {job}: {error}", remedy=_remedy(error, "See `silo job list`.")) from None
        logs = result.get("logs", result) if isinstance(result, dict) else {"server": str(result)}
        if not logs:  # NVFlare says so of a job that never ran, and of one whose record it has lost
            raise JobFailed(f"no log of job {job}: the server has none", remedy="See `silo job list`.")
        return "\n".join(str(text) for text in logs.values()) if isinstance(logs, dict) else str(logs)


def _remedy(error: Exception, otherwise: str) -> str:
    """Return what to do: who lacks the right can do nothing about the job."""
    if "not authorized" not in str(error):
        return otherwise
    return "Ask whoever submitted the job, or the operator: a job is its submitter's, and `member` may submit none."


def told_of_failure(log: str) -> str:
    """Return the reason for which a job ended itself, or NVFlare its process, as the server's log has it; else nothing."""
    for mark in (_PANIC, _CRITICAL):
        _, found, told = log.partition(mark)
        if found:
            return told.partition("\n")[0].strip()
    return ""


def told_of_rounds(log: str) -> list[str]:
    """Return what the server's log of a training says of its rounds, a line each (`RoundRecord.sentence`)."""
    lines = (line for line in log.splitlines() if "TrainingRounds - INFO" in line and RECORD_MARK not in line)
    told = (line.partition("] - ")[2] for line in lines)
    return [line for line in told if any(mark in line for mark in _TOLD)]


def records_told(log: str) -> list[dict[str, Any]]:
    """Return the rounds' entries that the server's log of a training holds so far, as `rounds.json` will have them."""
    records: list[dict[str, Any]] = []
    for line in (line for line in log.splitlines() if "TrainingRounds - INFO" in line):
        if taken_back := _TAKEN_BACK.search(line):
            void_in(records, int(taken_back[1]), taken_back[2])
        with contextlib.suppress(ValueError):  # another line, or one that is being written
            records.append(json.loads(line.partition(RECORD_MARK)[2]))
    return records


@contextmanager
def stage_job(folder: Path, settings: Mapping[str, Any], option: str = OPTION) -> Iterator[Path]:
    """Yield a copy of a job folder with `settings` written into its plan; NVFlare signs a submitted folder in place.

    A key is a dotted path into the first workflow's arguments, or into its `plan` where it has one ("rounds",
    "training.batch_size"); `option` says where they were given. Raises as `require_job` does.
    """
    require_job(folder, settings, option)
    with tempfile.TemporaryDirectory(prefix="siloscope-job-") as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".__nvfl_*"))
        if settings:
            (copy / SERVER_FILE).write_text(json.dumps(with_settings(folder, settings), indent=2), encoding="utf-8")
        yield copy


def require_job(folder: Path, settings: Mapping[str, Any], option: str = OPTION) -> None:
    """Check a job folder and what is to be set in it, as far as can be known before it is sent.

    Raises `NotReady` if `folder` is no job, `ConfigInvalid` naming every wrong setting of a job of ours.
    """
    if not (folder / "meta.json").is_file():
        raise NotReady(f"{folder} is not a job: it has no meta.json", remedy="Name a folder such as jobs/train.")
    require_sound(folder, settings, option)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NVFlare's own words about a login from people: it prints where our data go, and logs every refused connection.

    Its log stays as quiet for as long as the process lives: of a connection that is lost our errors tell. A process that
    keeps a log has it there.
    """
    logger = logging.getLogger("nvflare")
    if not logger.hasHandlers():  # else Python writes warnings to standard error by itself
        logger.addHandler(logging.NullHandler())
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _asking_again_soon() -> Iterator[None]:
    """Let a login repeat its first question after a tenth of a second.

    NVFlare 2.9 asks before its connection is up, and then waits for a whole second: every command would begin with it.
    """
    from nvflare.fuel.hci.client import api

    patient = api.Authenticator
    api.Authenticator = lambda **given: patient(**(given | {"retry_interval": _ASK_AGAIN_S}))
    try:
        yield
    finally:
        api.Authenticator = patient


def _admin_of(kit: Path) -> tuple[str, str, int]:
    """Return who the kit is of, and where the server is: host and port."""
    file = kit / "startup" / "fed_admin.json"
    try:
        admin = json.loads(file.read_text(encoding="utf-8"))["admin"]
        return str(admin["username"]), str(admin["host"]), int(admin["port"])
    except FileNotFoundError:
        raise CertificateMissing(
            "this is not a researcher's startup kit: startup/fed_admin.json is missing",
            where=str(kit),
            remedy="Name the admin kit with --admin (or SILO_ADMIN); `consortium provision` makes one per person.",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError("not an NVFlare admin configuration", where=str(file), remedy="Provision it again.") from None


def _state(meta: Mapping[str, Any]) -> JobState:
    return JobState(
        job=str(meta.get("job_id", "")),
        name=str(meta.get("name") or meta.get("job_name") or ""),
        status=str(meta.get("status", "")),
        submitted=_seconds(meta.get("submit_time_iso") or meta.get("submit_time")),
        duration=_seconds(meta.get("duration")),
    )


def _seconds(time_told: object) -> str:
    """Return a time or duration as NVFlare tells it, without the fraction of its last second."""
    return re.sub(r"(:\d\d)\.\d+", r"\1", str(time_told or ""))
