"""`silo doctor`: what is not as it should be on this machine, and what to do about it."""

import dataclasses
from typing import Any

import typer
from rich.markup import escape

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load

_COLORS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Look at everything that a silo needs: installation, disk, certificates, policy, sources, catalogue, cache, index.

    Each line says what was seen and, if it is not well, what to do. Nothing is changed. The exit status is 1 if there
    is a problem; a warning is something that works today.

    Examples:
        silo doctor --silo kits/st-anna

        silo doctor --silo kits/st-anna --format json
    """
    from silo_app.doctor.examination import examine

    checks = [dataclasses.asdict(checked) for checked in examine(load(silo))]
    problems = sum(checked["outcome"] == "problem" for checked in checks)
    warnings = sum(checked["outcome"] == "warning" for checked in checks)
    emit({"checks": checks, "problems": problems, "warnings": warnings}, output, _print)
    if problems:
        raise typer.Exit(1)


def _print(data: dict[str, Any]) -> None:
    table = WholeTable("", "what", "seen, and what to do")
    for checked in data["checks"]:
        color = _COLORS[checked["outcome"]]
        remedy = f"\n[bold]{escape(checked['remedy'])}[/bold]" if checked["remedy"] else ""
        mark = f"[{color}]{checked['outcome']}[/{color}]"
        table.add_row(mark, escape(checked["name"]), escape(checked["seen"]) + remedy)
    data_screen().print(table, highlight=False)
