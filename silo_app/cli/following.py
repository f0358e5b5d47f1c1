"""What `silo job watch` shows of a training: one row a round, one column a silo, and what this silo's own journal adds."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table

from silo_app.cli.edge import people
from silo_app.errors import JobFailed, NotReady

if TYPE_CHECKING:
    from silo_app.encoder.journal import JournalRound

__all__ = ["follow_journal", "follow_server", "rounds_table"]

_EVERY_S = 3.0
_STEPS = ("update", "sign", "reveal")


def follow_server(job: str, admin: Path, silo: Path | None, *, timeout_s: float) -> None:
    """Follow a job from the server's log until it is over; raises as `Console.wait` does."""
    from silo_app.encoder.journal import read_journal
    from silo_app.flare.console import Console, records_told, told_of_rounds

    folder = None if silo is None else _folder(job, silo)
    start, told = time.monotonic(), 0
    with Console.open(admin) as console, Live(console=people, auto_refresh=False, transient=True) as live:

        def read_log() -> str:
            with contextlib.suppress(JobFailed):  # a job has no log before it runs
                return console.log(job)
            return ""

        def tell(state: Any) -> None:
            nonlocal told
            log = read_log()
            sentences = told_of_rounds(log)
            for sentence in sentences[told:]:
                people.print(sentence, highlight=False, markup=False)
            told = max(told, len(sentences))
            table = rounds_table(records_told(log), read_journal(folder) if folder else [])
            if table is not None and people.is_terminal:
                table.caption = f"{state.name}: {state.status}, {time.monotonic() - start:.0f} s"
                live.update(table, refresh=True)

        state = console.wait(job, timeout_s=timeout_s, tell=tell, poll_s=_EVERY_S)
        table = rounds_table(records_told(read_log()), read_journal(folder) if folder else [])
    if table is not None:
        people.print(table, markup=False)
    people.print(f"{state.name}: {state.status} after {state.duration}")


def follow_journal(job: str, silo: Path, *, timeout_s: float, every_s: float = _EVERY_S) -> None:
    """Follow a training from a silo's own journal until the silo has finished. Raises `NotReady` if it took no part."""
    from silo_app.encoder.journal import read_journal

    folder, end = _folder(job, silo), time.monotonic() + timeout_s
    if not folder.is_dir():
        raise NotReady(
            f"this silo has no journal of job {job}", where=str(folder), remedy="It begins when the silo joins the job."
        )
    with Live(console=people, auto_refresh=False, transient=True) as live:
        while (folder / "state").exists() and time.monotonic() < end:  # kept until the silo has finished
            table = rounds_table([], read_journal(folder))
            if table is not None and people.is_terminal:
                live.update(table, refresh=True)
            time.sleep(every_s)
    if (table := rounds_table([], read_journal(folder))) is not None:
        people.print(table, markup=False)


def _folder(job: str, silo: Path) -> Path:
    from silo_app import config

    return config.load(silo).root / "jobs" / Path(job).name


def rounds_table(records: Sequence[Mapping[str, Any]], journal: Sequence["JournalRound"]) -> Table | None:
    """Return the table, or None before there is a round.

    `records` are the server's entries (`rounds.json`), none where only a silo is asked; `journal` is that of one silo, empty
    where only the server is. Void rounds have rows of their own.
    """
    known = {one.round: one for one in journal}
    silos = sorted({silo for one in records for silo in (*one["participants"], *one["quarantined"])})
    rows = [one for one in records if one["round"] is not None]
    if not rows and not known:
        return None
    table = Table(box=None, pad_edge=False)
    table.add_column("round", justify="right")
    for name in (*silos, *(("seconds", *_STEPS) if records else ()), *(_OWN if journal else ())):
        table.add_column(name)
    if not records:
        rows = [{"round": number, "outcome": "sum"} for number in known]
    for one in rows:
        own = known.get(one["round"]) if one["outcome"] == "sum" else None
        cells = [*(_part(one, silo) for silo in silos), *(_times(one) if records else ()), *(_own(own) if journal else ())]
        table.add_row(f"{one['round'] + 1}{'' if one['outcome'] == 'sum' else ' void'}", *cells)
    return table


_OWN = ("own steps", "own s", "loss", "held-out loss, all", "held-out loss, own", "AUC, own")


def _part(record: Mapping[str, Any], silo: str) -> str:
    if silo in record["accepted"]:
        return "in the sum"
    why = record["quarantined"].get(silo)
    return f"{why['code']} ({why['step']})" if why else "-"


def _times(record: Mapping[str, Any]) -> list[str]:
    return [_number(record["seconds"], ".1f"), *(_number(record["steps"].get(step), ".1f") for step in _STEPS)]


def _own(known: "JournalRound | None") -> list[str]:
    if known is None:
        return [""] * len(_OWN)
    numbers = (known.loss, known.pooled_held_out_loss, known.held_out_loss, known.held_out_auc)
    return [_number(known.steps, "g"), _number(known.train_seconds, ".1f"), *(_number(one, ".4f") for one in numbers)]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
