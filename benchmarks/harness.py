"""What all benchmarks share: arguments, the machine, a table for people, JSON for machines, and whether targets hold.

A benchmark is a function that takes the parsed arguments and returns figures. `main` prints them and writes one object

    {"name": ..., "machine": {...}, "date": ..., "figures": {name: {"value": ..., "unit": ...}},
     "targets": {figure: ["<=" or ">=", limit]}, "held": true or false}

and returns 0 only when every target holds.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import psutil
from rich.console import Console
from rich.table import Table

from silo_app import durable
from silo_app.encoder.devices import graphics_processors

__all__ = ["Figure", "Target", "main"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str
    """"s", "MB", "x" for a ratio, "values", ..."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must be: at most its limit, or at least it."""

    figure: str
    limit: float
    at_least: bool = False

    def holds(self, value: float | None) -> bool:
        """Return whether `value` meets the target; a figure that was not measured does not."""
        if value is None:
            return False
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def relation(self) -> str:
        """How the figure and the limit must relate."""
        return ">=" if self.at_least else "<="


def main(
    name: str,
    measure: Callable[[argparse.Namespace], list[Figure]],
    targets: Sequence[Target] | Callable[[argparse.Namespace], Sequence[Target]] = (),
    *,
    describe: str,
    options: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run one benchmark from the command line; return its exit status.

    `options` adds arguments beside `--quick` and `--json`; the figures come on stdout as a table. `targets` may depend on
    the arguments.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=describe)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and cases; the same targets")
    parser.add_argument("--json", metavar="FILE", help="write figures, machine and date to FILE; - is standard output")
    if options:
        options(parser)
    arguments = parser.parse_args(argv)
    result = report(name, measure(arguments), targets(arguments) if callable(targets) else targets)
    content = json.dumps(result, indent=2) + "\n"
    show(result, sys.stderr if arguments.json == "-" else sys.stdout)
    if arguments.json == "-":
        sys.stdout.write(content)
    elif arguments.json:
        durable.write_text(Path(arguments.json).resolve(), content, mode=durable.SHARED)
    return 0 if result["held"] else 1


def report(name: str, figures: Sequence[Figure], targets: Sequence[Target]) -> dict[str, Any]:
    """Return the benchmark's object."""
    values = {figure.name: figure.value for figure in figures}
    return {
        "name": name,
        "machine": machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": {figure.name: {"value": figure.value, "unit": figure.unit} for figure in figures},
        "targets": {target.figure: [target.relation, target.limit] for target in targets},
        "held": all(target.holds(values.get(target.figure)) for target in targets),
    }


def machine() -> dict[str, Any]:
    """Return what a reader needs to compare figures; nothing that names the machine."""
    # A benchmark that computes on a graphics processor has loaded PyTorch by now; the others need not wait for it.
    graphics = graphics_processors() if "torch" in sys.modules else ()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    } | ({"graphics": list(graphics)} if graphics else {})


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(result: dict[str, Any], stream: TextIO) -> None:
    """Print the figures, each with its target."""
    targets = dict(result["targets"])
    table = Table(title=f"{result['name']}, {result['date']}", title_justify="left")
    for column in ("figure", "value", "unit", "target"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, figure in result["figures"].items():
        table.add_row(name, f"{figure['value']:.4g}", figure["unit"], _verdict(targets.pop(name, None), figure["value"]))
    for name, target in targets.items():
        table.add_row(name, "not measured", "", _verdict(target, None))
    Console(file=stream, width=None if stream.isatty() else 120).print(table)


def _verdict(target: list[Any] | None, value: float | None) -> str:
    if target is None:
        return ""
    relation, limit = target
    held = Target("", limit, at_least=relation == ">=").holds(value)
    return f"{relation} {limit:g}: {'held' if held else 'MISSED'}"
