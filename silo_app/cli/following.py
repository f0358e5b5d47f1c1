"""What `silo job watch` shows of a training: one row a round, one column a silo, and what this silo's own journal adds."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live

from silo_app.cli.edge import people
from silo_app.cli.tables import WholeTable
from silo_app.errors import JobFailed, NotReady

if TYPE_CHECKING:
    from silo_app.encoder.journal import JournalRound

__all__ = ["follow_journal", "follow_server", "tables"]

_EVERY_S = 3.0
_STEPS = ("update", "sign", "reveal")


def follow_server(job: str, admin: Path, silo: Path | None, *, timeout_s: float) -> None:
    """Follow a job from the server's log until it is over; raises as `Console.wait` does."""
    from silo_app.encoder.journal import read_journal
    from silo_app.flare.console import Console, records_told, told_of_rounds

    start, told = time.monotonic(), 0
    with Console.open(admin) as console, Live(console=people, auto_refresh=False, transient=True) as live:
        job = console.named(job)
        folder = None if silo is None else _folder(job, silo)

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
            if people.is_terminal:
                line = f"{state.name}: {state.status}, {time.monotonic() - start:.0f} s"
                shown = tables(records_told(log), read_journal(folder) if folder else [])
                live.update(Group(*_apart(shown), line), refresh=True)

        state = console.wait(job, timeout_s=timeout_s, tell=tell, poll_s=_EVERY_S)
        shown = tables(records_told(read_log()), read_journal(folder) if folder else [])
    people.print(*_apart(shown), markup=False)
    people.print(f"{state.name}: {state.status} after {state.duration}")


def follow_journal(job: str, silo: Path, *, timeout_s: float, every_s: float = _EVERY_S) -> None:
    """Follow a training from a silo's own journal as long as the silo takes part. Raises `NotReady` if it took none."""
    from silo_app.encoder.journal import is_being_written, read_journal

    folder, end = _folder(job, silo), time.monotonic() + timeout_s
    if not folder.is_dir():
        raise NotReady(
            f"this silo has no journal of job {job}", where=str(folder), remedy="It begins when the silo joins the job."
        )
    with Live(console=people, auto_refresh=False, transient=True) as live:
        while is_being_written(folder) and time.monotonic() < end:
            if people.is_terminal:
                live.update(Group(*tables([], read_journal(folder))), refresh=True)
            time.sleep(every_s)
    people.print(*tables([], read_journal(folder)), markup=False)


def _apart(shown: Sequence[WholeTable]) -> list[WholeTable | str]:
    """Return the tables with an empty line before each."""
    return [part for table in shown for part in ("", table)]


def _folder(job: str, silo: Path) -> Path:
    from silo_app import config
    from silo_app.encoder import job_state

    jobs = config.load(silo).root / "jobs"
    return jobs / job_state.named(jobs, job)


def tables(records: Sequence[Mapping[str, Any]], journal: Sequence["JournalRound"]) -> list[WholeTable]:
    """Return a table of rounds, one of silos, one of a silo's own journal; each only where there is something to show.

    `records` are the server's entries (`rounds.json`), none where only a silo is asked.
    """
    rounds = [one for one in records if one["round"] is not None]
    made = [_rounds(rounds), _silos(rounds)] if rounds else []
    return [*made, _own(journal)] if journal else made


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> WholeTable:
    """One row a round; void ones have rows of their own."""
    table = WholeTable("round", "silos in the sum", "without", "seconds", *_STEPS)
    for one in rounds:
        why = (f"{silo}: {why['code']} ({why['step']})" for silo, why in one["quarantined"].items())
        outcome = f"{len(one['accepted'])} of {len(one['participants'])}" if one["outcome"] == "sum" else "void"
        times = [_number(one["seconds"], ".1f"), *(_number(one["steps"].get(step), ".1f") for step in _STEPS)]
        table.add_row(str(one["round"] + 1), outcome, ", ".join(why), *times)
    return table


def _silos(rounds: Sequence[Mapping[str, Any]]) -> WholeTable:
    """One row a silo: in how many sums it is, and where it last was not."""
    table = WholeTable("silo", "in sums", "last without it", "MB sent")
    sums = [one for one in rounds if one["outcome"] == "sum"]
    for silo in sorted({silo for one in rounds for silo in (*one["participants"], *one["quarantined"])}):
        missed = [(one["round"] + 1, one["quarantined"][silo]) for one in rounds if silo in one["quarantined"]]
        last = f"round {missed[-1][0]}: {missed[-1][1]['code']}" if missed else ""
        sent = sum(one["upload_bytes"].get(silo, 0) for one in rounds) / 1e6
        table.add_row(silo, f"{sum(silo in one['accepted'] for one in sums)} of {len(sums)}", last, f"{sent:.1f}")
    return table


def _own(journal: Sequence["JournalRound"]) -> WholeTable:
    columns = "loss, all", "held-out loss, all", "held-out loss, own", "AUC, own"
    table = WholeTable("round", "own steps", "own seconds", *columns)
    for one in journal:
        numbers = (one.loss, one.pooled_held_out_loss, one.held_out_loss, one.held_out_auc)
        own = [_number(one.steps, "g"), _number(one.train_seconds, ".1f")]
        table.add_row(str(one.round + 1), *own, *(_number(number, ".4f") for number in numbers))
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
