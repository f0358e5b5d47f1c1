"""A progress bar on standard error, for work that takes long enough for a person to wonder."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from silo_app.cli.edge import people

__all__ = ["work"]

_PATIENCE_SECONDS = 2.0


@contextmanager
def work(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that moves the bar: what is being done, how much of it is done, how much there is."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=people, transient=True)
    task = bar.add_task(title, total=None)
    start = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        bar.update(task, completed=done, total=total, description=f"{title}: {what}")
        if time.monotonic() - start > _PATIENCE_SECONDS and people.is_terminal:
            bar.start()

    try:
        yield tell
    finally:
        bar.stop()
