"""The `consortium` command: who is in the federation, and all of it on one machine."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from provisioning import consortium, processes
from provisioning.control import PartStatus
from provisioning.federation import Federation
from provisioning.provision import provision
from silo_app.errors import SiloscopeError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Provision a federation of hospitals, and run all of it on one machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
people = Console(stderr=True, highlight=False)

Format = Literal["text", "json"]
Folder = Annotated[Path, typer.Option("--dir", envvar="CONSORTIUM", help="The folder of the federation.")]
As = Annotated[Format, typer.Option("--format", help="json: one envelope on stdout.")]
Name = Annotated[str, typer.Argument(help="A participant (hospital-a) or a process (hospital-a.index).")]
Restart = Annotated[bool, typer.Option(help="Start a process again that ends by itself.")]
HERE = Path("consortium")


def main() -> None:
    """Run the command; an error of ours is shown as what it says, never as a traceback."""
    try:
        app()
    except SiloscopeError as error:
        people.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_status)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if not wanted:
        return
    try:
        typer.echo(f"siloscope {version('siloscope')}")
    except PackageNotFoundError:
        typer.echo("siloscope (from a checkout)")
    raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[  # noqa: FBT002 - typer's flags
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


@app.command("provision")
def provision_command(
    file: Annotated[Path, typer.Argument(help="The federation: its server, hospitals and people.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the federation.")] = HERE,
    output: As = "text",
) -> None:
    """Make a startup kit for every participant; run again, it adds what is new and touches nothing else.

    Example: consortium provision provisioning/consortium.yaml
    """
    changes: list[str] = []
    federation = provision(consortium.load(file), out, tell=changes.append)
    certificates = federation.certificates()
    if output == "json":
        _envelope({"dir": str(federation.root), "changes": changes, "certificates": [asdict(c) for c in certificates]})
        return
    for line in changes or ["nothing changed"]:
        people.print(line, markup=False)
    table = Table("participant", "startup kit", "certificate valid until", "days left", box=None)
    for certificate in certificates:
        kit = str(federation.kit(certificate.participant))
        table.add_row(certificate.participant, kit, f"{certificate.expires:%Y-%m-%d}", str(certificate.days_left))
    _wide(people).print(table)
    _next_steps(federation, out)


def _next_steps(federation: Federation, out: Path) -> None:
    option = "" if out == HERE else f" --dir {out}"
    server = federation.consortium.server
    people.print(
        f"\nNext, on this machine: consortium up{option}\n"
        "Or give each hospital its folder over a channel you trust (it holds a private key); there, with siloscope\n"
        f"installed: startup/start.sh. Hospitals connect to {server.host}:{server.port} and open no port themselves.\n"
        f"Keep {federation.root / '.authority'} safe: it holds the federation's root key.",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def up(directory: Folder = HERE, *, restart: Restart = True) -> None:
    """Start the server and every hospital on this machine, and wait until all of them work.

    Example: consortium up
    """
    federation = Federation.load(directory)
    with _progress() as progress:
        federation.up(progress, restart=restart)


@app.command()
def down(directory: Folder = HERE) -> None:
    """End every process that `consortium up` started, with all their children; no other process is touched.

    Example: consortium down
    """
    federation = Federation.load(directory)
    with _progress() as progress:
        _tell_killed(federation.down(progress))


@app.command()
def start(name: Name, directory: Folder = HERE, *, restart: Restart = True) -> None:
    """Start one participant or one process.

    Example: consortium start hospital-a
    """
    federation = Federation.load(directory)
    with _progress() as progress:
        federation.start(name, progress, restart=restart)


@app.command()
def stop(name: Name, directory: Folder = HERE) -> None:
    """End one participant or one process.

    Example: consortium stop hospital-a
    """
    federation = Federation.load(directory)
    with _progress() as progress:
        _tell_killed(federation.stop(name, progress))


@app.command()
def status(
    directory: Folder = HERE,
    output: As = "text",
    *,
    ask: Annotated[bool, typer.Option(help="Ask the server which hospitals it reaches (some seconds).")] = True,
) -> None:
    """Show every process: running or not, since when, reached by the server or not, memory.

    Example: consortium status --format json
    """
    federation = Federation.load(directory)
    found = federation.status(ask_server=ask)
    if output == "json":
        _envelope({"dir": str(federation.root), "processes": [asdict(part) for part in found]})
        return
    table = Table("process", "state", "pid", "up for", "reached", "memory", "restarts", box=None)
    for part in found:
        table.add_row(*_row(part))
    _wide(Console(highlight=False)).print(table)


def _row(part: PartStatus) -> tuple[str, ...]:
    up_for = str(datetime.now(UTC) - part.since).split(".", maxsplit=1)[0] if part.since else ""
    reached = {None: "", True: "yes", False: "no"}[part.registered]
    memory = f"{part.memory_bytes / 1e6:.0f} MB" if part.memory_bytes else ""
    return (part.name, part.state, str(part.pid or ""), up_for, reached, memory, str(part.restarts or ""))


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="A participant or process; all of them without one.")] = None,
    directory: Folder = HERE,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
) -> None:
    """Show the last lines of the processes' logs.

    Example: consortium logs hospital-a -f
    """
    federation = Federation.load(directory)
    names = [name] if name else [part.name for part in federation.status(ask_server=False)]
    found = [log for each in names for log in federation.logs(each)]
    for log in found:
        people.print(f"==> {log}", markup=False)
        typer.echo(processes.tail(log, lines))
    if follow and found:
        subprocess.run(["tail", "-q", "-n", "0", "-F", *map(str, found)], check=False)  # noqa: S607 - the system's tail


@contextmanager
def _progress() -> Iterator[Any]:
    began = time.monotonic()

    def tell(name: str, what: str) -> None:
        people.print(f"{time.monotonic() - began:6.1f} s  {name:<24} {what}", markup=False)

    yield tell


def _tell_killed(killed: list[int]) -> None:
    if killed:
        people.print(f"killed, because they did not end when asked: {', '.join(map(str, killed))}", markup=False)


def _wide(console: Console) -> Console:
    # In a pipe a table is not cut to 80 columns.
    return console if console.is_terminal else Console(file=console.file, width=240, highlight=False)


def _envelope(data: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema_version": 1, "status": "ok", "data": data}, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
