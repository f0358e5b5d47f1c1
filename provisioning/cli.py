"""The `consortium` command: who is in the federation, and a whole consortium on one machine."""

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from provisioning import consortium as description
from provisioning import kits, processes
from provisioning.control import PartStatus
from provisioning.federation import Federation
from silo_app.cli import edge
from silo_app.cli.edge import FormatOption, OutputFormat, emit, people, writable_folder
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    help="Provision a consortium of hospitals, and run one on this machine for demo, tests and development.",
    pretty_exceptions_enable=False,
)
edge.with_version(app)
FolderOption = Annotated[
    Path, typer.Option("--dir", envvar="CONSORTIUM", help="The folder that `consortium provision` made.")
]
NameArgument = Annotated[str, typer.Argument(help="A participant (hospital-a) or one process (hospital-a.index).")]
RestartOption = Annotated[bool, typer.Option(help="Start a process again when it ends by itself.")]
_DEFAULT = Path("consortium")


@app.command()
def provision(
    file: Annotated[Path, typer.Argument(help="The consortium's description (YAML).")],
    out: Annotated[Path, typer.Option(help="Where the startup kits go.", callback=writable_folder)] = _DEFAULT,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make startup kits; again later, it adds what is new and leaves the root and everything that is right alone.

    Example:
        consortium provision provisioning/consortium.yaml --out consortium
    """
    changes: list[str] = []
    federation = kits.provision(description.read(file), out, tell=changes.append)
    data = {"folder": str(federation.root), "changes": changes, "kits": _lives(federation)}
    emit(data, output, lambda _: _show_kits(data, federation))


@app.command()
def renew(
    names: Annotated[list[str] | None, typer.Argument(help="Whose; none: all that end soon.", show_default=False)] = None,
    folder: FolderOption = _DEFAULT,
    within: Annotated[int, typer.Option(help="Without names: those that end within so many days.", min=0)] = 60,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Issue new certificates and keys, of the same root, before the old ones end; everything else stays as it is.

    The old ones are good until they end. If a kit was lost, `consortium revoke` ends them now.

    Examples:
        consortium renew --dir consortium

        consortium renew hospital-b --dir consortium
    """
    changes: list[str] = []
    federation = kits.renew(Federation.load(folder), names or (), within=timedelta(days=within), tell=changes.append)
    data = {"folder": str(federation.root), "changes": changes, "kits": _lives(federation)}
    emit(data, output, lambda _: _show_renewed(data))


@app.command()
def revoke(
    names: Annotated[list[str], typer.Argument(help="Whose certificates end now.")],
    folder: FolderOption = _DEFAULT,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """End certificates before their time: a kit was lost, or a hospital is not to come back with the one it has.

    Who still is in the federation's file gets a new certificate and key. Who is not in it is let in by nobody anyway. It
    holds once the server has its changed files and was started again; every site then has to start again too.

    Example:
        consortium revoke lead@siloscope.example --dir consortium
    """
    changes: list[str] = []
    federation = kits.revoke(Federation.load(folder), names, tell=changes.append)
    data = {"folder": str(federation.root), "changes": changes, "kits": _lives(federation)}
    emit(data, output, lambda _: _show_renewed(data))


@app.command()
def up(folder: FolderOption = _DEFAULT, *, restart: RestartOption = True) -> None:
    """Start server, anchor, silos and their index processes on this machine, and wait until all are ready.

    Example:
        consortium up --dir consortium
    """
    named = _named(folder)
    with _telling("up", f"`consortium status{named}`, `consortium down{named}`") as tell:
        Federation.load(folder).up(tell, restart=restart)


@app.command()
def down(folder: FolderOption = _DEFAULT) -> None:
    """End every process that `consortium up` started from this folder, with what they started, and no other.

    Example:
        consortium down --dir consortium
    """
    with _telling("down") as tell:
        Federation.load(folder).down(tell)


@app.command()
def start(name: NameArgument, folder: FolderOption = _DEFAULT, *, restart: RestartOption = True) -> None:
    """Start one participant, or one of its processes.

    Example:
        consortium start hospital-b
    """
    with _telling("started") as tell:
        Federation.load(folder).start(name, tell, restart=restart)


@app.command()
def stop(name: NameArgument, folder: FolderOption = _DEFAULT) -> None:
    """End one participant's processes, or one of them.

    Example:
        consortium stop hospital-b
    """
    with _telling("stopped") as tell:
        Federation.load(folder).stop(name, tell)


@app.command()
def status(
    folder: FolderOption = _DEFAULT,
    output: FormatOption = OutputFormat.TABLE,
    *,
    ask: Annotated[bool, typer.Option(help="Ask the server which silos it reaches (takes some seconds).")] = True,
) -> None:
    """Say what runs, since when, with how much memory, and which silos the server reaches.

    Example:
        consortium status --format json
    """
    found = Federation.load(folder).status(ask_server=ask)
    emit({"processes": [asdict(part) for part in found]}, output, lambda _: _show_status(found))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A participant or process; none shows all of them.")] = "",
    folder: FolderOption = _DEFAULT,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many lines from the end.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,  # noqa: FBT002
) -> None:
    """Print the end of the processes' logs; `NAME.index` is a silo's index process.

    Example:
        consortium logs hospital-b -f
    """
    files = Federation.load(folder).logs(name)
    if not files:
        raise InputError(f"{name or 'the consortium'} has no log yet", remedy="Start it: `consortium up`.")
    for file in files:
        people.print(f"==> {file} <==", highlight=False, soft_wrap=True)
        typer.echo(processes.tail(file, lines))
    if follow:
        subprocess.run(["tail", "-q", "-n", "0", "-F", *map(str, files)], check=False)  # noqa: S607  (the system's own)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.", callback=writable_folder)] = Path("demo"),
    data: Annotated[
        str, typer.Option(help="Zips or folders of real images with a CSV, separated by commas; none: synthetic phantoms.")
    ] = "",
    hospitals: Annotated[int, typer.Option(help="How many hospitals.", min=2, max=16)] = 3,
    studies: Annotated[int, typer.Option(help="Phantom studies a hospital.", min=20)] = 220,
    alpha: Annotated[float, typer.Option(help="Dirichlet label skew between hospitals; real images only.", min=0.01)] = 0.5,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training.", min=1, show_default=False)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over a silo's images in a round.", show_default=False)] = None,
    input_size: Annotated[int, typer.Option(help="Side of the network's input, pixels.")] = 64,
    backbone: Annotated[
        str | None,
        typer.Option(help="The network, as densenet121; default: small enough for two cores.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of phantoms, partition and training.", min=0)] = 1,
) -> None:
    """Run everything, from images to a search across hospitals, and write report.html.

    Examples:
        consortium demo

        consortium demo --data pediatric-chest-xray.zip --alpha 0.5

        consortium demo --data pediatric-chest-xray.zip --backbone densenet121 --input-size 224
    """
    from provisioning.demo import DemoSettings, run

    sets = tuple(Path(part).resolve() for part in data.split(",") if part)
    phantoms = not sets
    settings = DemoSettings(
        out=out.resolve(),
        data=sets,
        hospitals=hospitals,
        studies=studies,
        alpha=alpha,
        seed=seed,
        input_size=input_size,
        backbone=backbone,
        rounds=rounds or (6 if phantoms else 5),
        epochs=epochs or (8.0 if phantoms else 1.0),
    )
    run(settings, people)


@contextmanager
def _telling(done: str, next_step: str = "") -> Iterator[Callable[[str], None]]:
    """Show each line as it comes, with the time that passed."""
    began = time.monotonic()

    def tell(line: str) -> None:
        people.print(f"{time.monotonic() - began:5.1f} s  {line}", highlight=False, markup=False)

    yield tell
    seconds = f"{time.monotonic() - began:.0f} s"
    then = f"; {escape(next_step)}" if next_step else ""
    people.print(f"[green]{done}[/green] after {seconds}{then}", highlight=False, soft_wrap=True)


def _named(folder: Path) -> str:
    """Return how other commands name the folder, to be typed behind them; "" for the one that they take anyway."""
    return "" if folder.resolve() == _DEFAULT.resolve() else f" --dir {shlex.quote(str(folder))}"


def _lives(federation: Federation) -> list[dict[str, Any]]:
    roles = {federation.server: "server", federation.consortium.anchor: "anchor"} | dict.fromkeys(federation.silos, "silo")
    return [
        {
            "name": certificate.participant,
            "role": roles.get(certificate.participant, "person"),
            "kit": str(federation.kit(certificate.participant)),
            "valid_until": f"{certificate.expires:%Y-%m-%d}",
            "days": certificate.days_left,
        }
        for certificate in federation.certificates()
    ]


def _show_lives(data: dict[str, Any]) -> None:
    for change in data["changes"] or ["nothing changed"]:
        people.print(change, highlight=False, markup=False, soft_wrap=True)
    table = WholeTable("participant", "role", "startup kit", "certificate valid until", copied=("startup kit",))
    for kit in data["kits"]:
        table.add_row(kit["name"], kit["role"], kit["kit"], f"{kit['valid_until']} ({kit['days']} days)")
    data_screen().print(table)


def _show_renewed(data: dict[str, Any]) -> None:
    _show_lives(data)
    if data["changes"]:
        people.print(
            "Send everybody the changed files over a channel you trust: they go into the kit's startup/. Then start again\n"
            "what runs from it: startup/stop_fl.sh and start.sh, and at a hospital `silo serve` and `silo desk`. Where the\n"
            "server's certificate is new, every site starts again after it: what it gave them ended with the old one.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _show_kits(data: dict[str, Any], federation: Federation) -> None:
    _show_lives(data)
    people.print(
        f"On this machine: consortium up{_named(federation.root)}\n"
        "Elsewhere: send each hospital its own folder over a channel you trust (it holds a private key); with siloscope\n"
        "installed there, startup/start.sh connects it. Hospitals open no port themselves.\n"
        f"Keep {federation.root / '.authority'} offline: it holds the root's key.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _show_status(found: list[PartStatus]) -> None:
    colors = {"running": "green", "restarting": "yellow", "failed": "red", "stopped": "dim"}
    table = WholeTable("process", "state", "pid", "up for", "reached", "memory", "restarts")
    for part in found:
        up_for = str(datetime.now(UTC) - part.since).split(".", maxsplit=1)[0] if part.since else ""
        table.add_row(
            part.name,
            f"[{colors[part.state]}]{part.state}[/]",
            str(part.pid or ""),
            up_for,
            {None: "", True: "yes", False: "[red]no[/red]"}[part.reached],
            f"{part.memory_bytes / 1e6:.0f} MB" if part.memory_bytes else "",
            str(part.restarts or ""),
        )
    data_screen().print(table)


def main() -> None:
    """Run the command line, turning our errors into one line with a remedy."""
    edge.run(app)


if __name__ == "__main__":
    main()
