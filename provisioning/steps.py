"""The demo's steps as the commands that a person would type: each is run as a process, shown, and timed."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from silo_app.command import command_line, data_of

__all__ = ["Steps"]


@dataclass
class Steps:
    """Runs commands one after the other (or several at once) and remembers how long each phase took."""

    screen: Console
    threads: int
    seconds: dict[str, float] = field(default_factory=dict)

    def phase(self, title: str) -> "_Phase":
        """Return a context that prints a heading and records the phase's seconds."""
        return _Phase(self, title)

    def silo(self, *arguments: str, quiet: bool = False) -> Any:
        """Run `silo ARGUMENTS --format json` and return its data. Raises `ProcessFailed` with the command's own error."""
        return self.silos([arguments], quiet=quiet)[0]

    def silos(self, commands: Sequence[Sequence[str]], *, quiet: bool = False) -> list[Any]:
        """Run several `silo` commands at once and return their data in order."""
        running = []
        for arguments in commands:
            if not quiet:
                self.screen.print(f"  [dim]$ silo {' '.join(map(_short, arguments))}[/dim]", highlight=False)
            running.append(_start(arguments, max(1, self.threads // len(commands))))
        return [_data(process, arguments) for process, arguments in zip(running, commands, strict=True)]


@dataclass
class _Phase:
    steps: Steps
    title: str
    start: float = 0.0

    def __enter__(self) -> Self:
        self.start = time.monotonic()
        self.steps.screen.print(f"\n[bold]{self.title}[/bold]")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        taken = time.monotonic() - self.start
        self.steps.seconds[self.title] = round(taken, 1)
        if kind is None:
            self.steps.screen.print(f"  [green]done[/green] in {taken:.0f} s")


def _start(arguments: Sequence[str], threads: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        command_line(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def _data(process: subprocess.Popen[str], arguments: Sequence[str]) -> Any:
    output, noise = process.communicate()
    command = f"silo {' '.join(map(_short, arguments))}"
    return data_of(output, status=process.returncode, command=command, noise=noise)


def _short(argument: str) -> str:
    """Show paths below the working directory as a person would type them."""
    path = Path(argument)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return argument
