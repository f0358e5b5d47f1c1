"""`silo job`: what a researcher does with jobs, beside NVFlare's own console."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console as Screen

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.errors import ConfigInvalid

if TYPE_CHECKING:
    from silo_app.flare.console import Console

app = typer.Typer(no_args_is_help=True, help="Submit and follow federated jobs (a researcher's admin kit is needed).")
_people = Screen(stderr=True)

AdminOption = Annotated[
    Path, typer.Option("--admin", envvar="SILO_ADMIN", help="The researcher's startup kit.", show_default=False)
]


JobArgument = Annotated[str, typer.Argument(help="The job's id; its first 8 digits do.", show_default=False)]


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(help="The job's folder, such as jobs/train.")],
    admin: AdminOption,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE into the job's plan; may be given again.")
    ] = None,
    job: Annotated[
        str | None, typer.Argument(help="With --resume: which job, instead of the newest that closed rounds.")
    ] = None,
    resume: Annotated[  # noqa: FBT002
        bool, typer.Option("--resume", help="Go on where a training job ended that did not finish, with its settings.")
    ] = False,
    admit: Annotated[
        list[str] | None,
        typer.Option("--admit", help="With --resume: a silo that was not in the job and may enter now; may be given again."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job is over.")] = False,  # noqa: FBT002
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 7 * 86_400,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Submit a job, after checking its settings as the server will: one that is wrong is named, and nothing is sent.

    Examples:
        silo job submit jobs/train --admin consortium/lead@example.org

        silo job submit jobs/train --set rounds=4 --set training.batch_size=16 --wait

        silo job submit jobs/train --resume

        silo job submit jobs/train --resume --admit hospital-d
    """
    from silo_app.flare.console import require_job, stage_job

    given = parse_settings(settings or [])
    if resume and given:
        raise ConfigInvalid(
            "a job is resumed with the settings that it began with",
            where="silo job submit",
            remedy="Leave out --set to resume, or leave out --resume to begin anew.",
        )
    if (job or admit) and not resume:
        raise ConfigInvalid(
            f"{job or ', '.join(admit or ())!r} is given without --resume",
            where="silo job submit",
            remedy="A job that begins takes every silo that is there. Give --resume to go on with one.",
        )
    if resume:
        given = {"resume": job or "newest", "admit": admit or []}
    option = "--resume" if resume else "--set"
    require_job(folder, given, option)  # before anybody is asked
    with _at_server(admin) as console:
        if resume:
            job = job and console.named(job)
            given["resume"] = console.unfinished(folder.name, job, tell=lambda line: _people.print(line, soft_wrap=True))
            _people.print(f"resuming {given['resume']}")
        with stage_job(folder, given, option) as staged:
            submitted = console.submit(staged)
        _people.print(f"submitted {folder} as {submitted}")
        status = "SUBMITTED"
        if wait:
            with _people.status(f"{folder.name}: waiting") as line:
                state = console.wait(submitted, timeout_s=timeout, tell=lambda s: line.update(f"{s.name}: {s.status}"))
            status = state.status
    emit({"job": submitted, "status": status}, output, lambda data: print(data["job"]))  # noqa: T201  (data on stdout)


@app.command()
def forget(
    silo: SiloOption,
    job: Annotated[str | None, typer.Argument(help="The job's id (its first 8 digits do) [default: all].")] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Give up what this silo keeps of training jobs that did not finish: their keys and weights so far.

    A silo that has forgotten a job cannot take part when it is resumed. A finished job leaves nothing to forget.

    Example:
        silo job forget --silo consortium/hospital-a
    """
    from silo_app import config
    from silo_app.encoder import job_state

    jobs = config.load(silo).root / "jobs"
    chosen = None if job is None else job_state.named(jobs, job)
    forgotten = job_state.forget_all(jobs) if chosen is None else [chosen] * job_state.forget(jobs, chosen)
    emit(
        {"forgotten": forgotten}, output, lambda data: typer.echo("".join(f"{one}\n" for one in data["forgotten"]), nl=False)
    )
    if not forgotten:
        of = "any job" if chosen is None else f"job {chosen}"
        _people.print(f"This silo keeps nothing of {of}.", highlight=False, markup=False, soft_wrap=True)


@app.command("list")
def list_jobs(
    admin: AdminOption,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=1000)] = 20,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """List jobs, newest first.

    Example:
        silo job list --admin consortium/lead@example.org
    """
    with _at_server(admin) as console:
        jobs = [vars(state) for state in console.jobs(limit=limit)]
    emit({"jobs": jobs}, output, lambda data: _table(data["jobs"]))


@app.command()
def watch(
    job: JobArgument,
    admin: Annotated[
        Path | None, typer.Option("--admin", envvar="SILO_ADMIN", help="The researcher's startup kit.", show_default=False)
    ] = None,
    silo: Annotated[
        Path | None, typer.Option("--silo", help="A silo's startup kit, for what its own journal knows.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 86_400,
) -> None:
    """Follow a job until it is over; of a training, every round, who is in it and who is not, and how long it took.

    The server knows no loss and no metric. Inside a silo, `--silo` adds what this silo knows: its own steps, the losses
    that all silos summed under encryption, and how the weights do on its own held-out patients. With `--silo` alone, the
    journal is followed until this silo has finished.

    Examples:
        silo job watch 7f2c1e9a --admin consortium/lead@example.org

        silo job watch 7f2c1e9a --silo consortium/hospital-a
    """
    from silo_app.cli.following import follow_journal, follow_server

    if admin is not None:
        follow_server(job, admin, silo, timeout_s=timeout)
    elif silo is not None:
        follow_journal(job, silo, timeout_s=timeout)
    else:
        raise ConfigInvalid("neither --admin nor --silo is given", where="silo job watch", remedy="Name one of them.")


@app.command()
def keep(folder: Annotated[Path, typer.Argument(help="The job's folder: jobs/search.")], admin: AdminOption) -> None:
    """Keep a long-running job running until this is ended: after a crash of server or job it is submitted again.

    Whoever runs the federation leaves this running beside the server (`consortium up` does, where consortium.yaml says
    `keep: [search]`). Where it runs twice, one job remains: the newest.

    Example:
        silo job keep jobs/search --admin consortium/lead@example.org
    """
    import signal
    import threading

    from silo_app.flare.keeper import keep as keep_running

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    _people.print(f"keeping {folder.name} running", highlight=False)
    keep_running(admin, folder, tell=lambda line: _people.print(line, highlight=False, soft_wrap=True), ended=over.wait)


@app.command()
def abort(job: JobArgument, admin: AdminOption) -> None:
    """End a running job.

    Example:
        silo job abort 7f2c1e9a --admin consortium/lead@example.org
    """
    with _at_server(admin) as console:
        console.abort(job := console.named(job))
    _people.print(f"aborted {job}")


@app.command()
def log(job: JobArgument, admin: AdminOption) -> None:
    """Print the server's log of a job.

    Example:
        silo job log 7f2c1e9a --admin consortium/lead@example.org
    """
    with _at_server(admin) as console:
        print(console.log(console.named(job)))  # noqa: T201  (data on stdout)


@app.command()
def download(job: JobArgument, admin: AdminOption) -> None:
    """Fetch the server's record of a job (who took part in which round, bytes, seconds; no weights: it has none).

    Example:
        silo job download 7f2c1e9a --admin consortium/lead@example.org
    """
    with _at_server(admin) as console:
        print(console.download(console.named(job)))  # noqa: T201  (data on stdout)


@contextmanager
def _at_server(admin: Path) -> Iterator["Console"]:
    """Log in, and say so meanwhile: a server that does not answer is waited for."""
    from silo_app.flare.console import Console

    with ExitStack() as opened:
        with _people.status("logging in at the server (up to 20 s)"):
            console = opened.enter_context(Console.open(admin))
        yield console


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Turn ["rounds=4", "encryption=none"] into {"rounds": 4, "encryption": "none"}; values are JSON or plain words."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigInvalid(f"{pair!r} is not NAME=VALUE", where="--set", remedy="Write, for example, rounds=4.")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def _table(jobs: list[dict[str, str]]) -> None:

    table = WholeTable("job", "name", "status", "submitted", "duration", copied=("job",))
    for state in jobs:
        words = state["status"].replace(":", ": ")  # where there is little room, it wraps there
        table.add_row(state["job"], state["name"], words, state["submitted"][:16].replace("T", " "), state["duration"])
    data_screen().print(table, markup=False, highlight=False)
