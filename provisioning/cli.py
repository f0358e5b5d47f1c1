"""The `consortium` command: who is in the federation, and a whole consortium on one machine."""

import datetime as dt
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from rich.console import Console
from rich.table import Table

from provisioning import consortium as description
from provisioning import kits
from provisioning.federation import Federation
from silo_app.cli import edge
from silo_app.cli.edge import FormatOption, OutputFormat, emit, people

app = typer.Typer(
    no_args_is_help=True,
    help="Provision a consortium of hospitals, and run one on this machine for demo, tests and development.",
    pretty_exceptions_enable=False,
)
FolderOption = Annotated[Path, typer.Option("--dir", help="The folder that `consortium provision` made.")]
_DEFAULT = Path("consortium")


@app.command()
def provision(
    file: Annotated[Path, typer.Argument(help="The consortium's description (YAML).")],
    out: Annotated[Path, typer.Option(help="Where the startup kits go.")] = _DEFAULT,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Make startup kits; again later, it adds what is new and leaves every existing kit and the root alone.

    Example:
        consortium provision provisioning/consortium.yaml --out consortium
    """
    kits.provision(description.read(file), out)
    federation = Federation.load(out)
    emit({"folder": str(out), "kits": _lives(federation)}, output, lambda data: _show_kits(data, federation))


@app.command()
def up(folder: FolderOption = _DEFAULT) -> None:
    """Start server, anchor, silos and their index processes on this machine, and wait until all are ready.

    Example:
        consortium up --dir consortium
    """
    start = time.monotonic()
    federation = Federation.load(folder)
    with people.status("starting") as line:

        def tell(text: str) -> None:
            people.print(f"  {text}")
            line.update(text)

        federation.up(tell)
    people.print(f"[green]up[/green] after {time.monotonic() - start:.0f} s; `consortium status`, `consortium down`")


@app.command()
def down(folder: FolderOption = _DEFAULT) -> None:
    """End every process that `consortium up` started from this folder, and no other.

    Example:
        consortium down --dir consortium
    """
    Federation.load(folder).down(lambda text: people.print(f"  {text}"))


@app.command()
def start(name: str, folder: FolderOption = _DEFAULT) -> None:
    """Start one participant.

    Example:
        consortium start hospital-b
    """
    Federation.load(folder).start(name, lambda text: people.print(f"  {text}"))


@app.command()
def stop(name: str, folder: FolderOption = _DEFAULT) -> None:
    """End one participant's processes.

    Example:
        consortium stop hospital-b
    """
    Federation.load(folder).stop(name)


@app.command()
def status(folder: FolderOption = _DEFAULT, output: FormatOption = OutputFormat.TABLE) -> None:
    """Say what runs.

    Example:
        consortium status --format json
    """
    states = [asdict(state) for state in Federation.load(folder).status()]
    emit({"processes": states}, output, _show_status)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A process as `consortium status` names it; none lists them.")] = "",
    folder: FolderOption = _DEFAULT,
    lines: Annotated[int, typer.Option("-n", help="How many lines from the end.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,  # noqa: FBT002
) -> None:
    """Print the log of one process.

    Example:
        consortium logs hospital-b -f
    """
    federation = Federation.load(folder)
    if not name:
        for state in federation.status():
            print(f"{state.name}\t{federation.log(state.name)}")  # noqa: T201
        return
    file = federation.log(name)
    if not file.is_file():
        people.print(f"{name} has no log yet ({file})")
        raise typer.Exit(1)
    with file.open(encoding="utf-8", errors="replace") as stream:
        print("".join(stream.readlines()[-lines:]), end="")  # noqa: T201
        while follow:
            text = stream.read()
            print(text, end="", flush=True) if text else time.sleep(0.3)  # noqa: T201


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    data: Annotated[
        str, typer.Option(help="Zips or folders of real images with a CSV, separated by commas; none: synthetic phantoms.")
    ] = "",
    hospitals: Annotated[int, typer.Option(help="How many hospitals.", min=2, max=16)] = 3,
    studies: Annotated[int, typer.Option(help="Phantom studies a hospital.", min=20)] = 220,
    alpha: Annotated[float, typer.Option(help="Dirichlet label skew between hospitals; real images only.", min=0.01)] = 0.5,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training.", min=1, show_default=False)] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over a silo's images in a round.", show_default=False)] = None,
    input_size: Annotated[int, typer.Option(help="Side of the network's input, pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Of phantoms, partition and training.", min=0)] = 1,
) -> None:
    """Run everything, from images to a search across hospitals, and write report.html.

    Examples:

        consortium demo

        consortium demo --data pediatric-chest-xray.zip --alpha 0.5
    """
    from provisioning.demo import DemoSettings, run

    sets = tuple(Path(part).resolve() for part in data.split(",") if part)
    chosen = {"rounds": rounds or (8 if sets else 6), "epochs": epochs or (1.0 if sets else 2.0)}
    settings = DemoSettings(
        out=out.resolve(),
        data=sets,
        hospitals=hospitals,
        studies=studies,
        alpha=alpha,
        seed=seed,
        input_size=input_size,
        **chosen,
    )
    run(settings, people)


def _lives(federation: Federation) -> list[dict[str, Any]]:
    people_names = [*federation.facts["researchers"], federation.facts["operator"]]
    roles = {federation.server: "server", federation.facts["anchor"]: "anchor"} | dict.fromkeys(federation.silos, "silo")
    result = []
    for name in (federation.server, *federation.sites, *people_names):
        kit = federation.kit(name)
        stem = "server" if name == federation.server else "client"
        certificate = x509.load_pem_x509_certificate((kit / "startup" / f"{stem}.crt").read_bytes())
        end = certificate.not_valid_after_utc
        days = (end - dt.datetime.now(dt.UTC)).days
        result.append(
            {
                "name": name,
                "role": roles.get(name, "person"),
                "kit": str(kit),
                "valid_until": f"{end:%Y-%m-%d}",
                "days": days,
            }
        )
    return result


def _show_kits(data: dict[str, Any], federation: Federation) -> None:
    table = Table("participant", "role", "startup kit", "certificate valid until")
    for kit in data["kits"]:
        table.add_row(kit["name"], kit["role"], kit["kit"], f"{kit['valid_until']} ({kit['days']} days)")
    Console().print(table)
    people.print(
        f"Send each hospital its own folder over a safe channel; keep {data['folder']}/.authority offline.\n"
        f"On one machine: `consortium up --dir {data['folder']}`, then as {federation.facts['researchers'][0]}: "
        f"`silo job submit jobs/train --admin {federation.admin_kit}`",
        highlight=False,
        soft_wrap=True,
    )


def _show_status(data: dict[str, Any]) -> None:
    table = Table("process", "role", "state", "pid", "up", "memory")
    for state in data["processes"]:
        word = "[green]ready[/green]" if state["ready"] else "[yellow]starting[/yellow]"
        table.add_row(
            state["name"],
            state["role"],
            word if state["running"] else "[red]down[/red]",
            str(state["pid"] or ""),
            f"{state['up_s']:.0f} s" if state["up_s"] else "",
            f"{state['memory_mb']:.0f} MB" if state["memory_mb"] else "",
        )
    Console().print(table)


def main() -> None:
    """Run the command line, turning our errors into one line with a remedy."""
    edge.run(app)


if __name__ == "__main__":
    main()
