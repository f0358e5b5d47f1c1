"""`silo ingest`: read the hospital's DICOM into catalogue and cache."""

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people
from silo_app.config import CsvLabels, FolderSource, NoLabels, SiloHome, TagLabels, load
from silo_app.errors import ConfigInvalid, SourceUnreachable
from silo_app.printable import printable

if TYPE_CHECKING:
    from silo_app.imaging.ingest import IngestReport
    from silo_app.imaging.ingest import Progress as Tell

_PATIENCE_SECONDS = 2.0
_NOTHING_USABLE = 2
_SHOWN_WORDS = 10


def ingest(
    silo: SiloOption,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of DICOM files, instead of those in silo.yaml; may be given again."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="The name of a source in silo.yaml, instead of all; may be given again.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="A label file, read as `labels` in silo.yaml says.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding processes; one a core by default.", min=1)] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Read DICOM files into the silo: usable images into the catalogue, every other file listed with its reason.

    Run it again at any time: only what is new or has changed is read, and a run that was cut off goes on.
    A source that does not answer loses nothing; the exit status is then 1. It is 2 if there is no usable image.

    Examples:
        silo ingest --silo kits/st-anna

        silo ingest --silo kits/st-anna --only pacs

        silo ingest --silo kits/st-anna --source /data/dicom --labels /data/labels.csv
    """
    from silo_app.imaging.ingest import ingest as run

    home = _with_options(_with_only(load(silo), only or []), source or [], labels)
    with _progress() as tell:
        report = run(home, workers=workers, progress=tell)
    _summarize(report)
    emit(dataclasses.asdict(report), output, _print_refused)
    if report.unreachable:
        raise typer.Exit(SourceUnreachable.exit_status)
    if report.added + report.unchanged == 0:
        raise typer.Exit(_NOTHING_USABLE)


def _with_only(home: SiloHome, names: list[str]) -> SiloHome:
    """Return the silo with the named sources alone. Raises `ConfigInvalid` for a name that no source has."""
    if not names:
        return home
    known = [source.name for source in home.config.sources if source.name]
    if unknown := [name for name in names if name not in known]:
        raise ConfigInvalid(
            f"no source is called {', '.join(unknown)}; there are: {', '.join(known) or 'none with a name'}",
            where="--only",
            remedy="Name a source by its `name` in local/silo.yaml.",
        )
    chosen = tuple(source for source in home.config.sources if source.name in names)
    return home.model_copy(update={"config": home.config.model_copy(update={"sources": chosen})})


def _with_options(home: SiloHome, sources: list[Path], labels: Path | None) -> SiloHome:
    """Return the silo with what the command line says in place of what its file says."""
    changes: dict[str, Any] = {}
    if sources:
        changes["sources"] = tuple(FolderSource(path=path.resolve()) for path in sources)
    if labels:
        known = home.config.labels
        base = CsvLabels(path=labels) if isinstance(known, TagLabels | NoLabels) else known
        changes["labels"] = base.model_copy(update={"path": labels.resolve()})
    return home.model_copy(update={"config": home.config.model_copy(update=changes)})


@contextmanager
def _progress() -> Iterator["Tell"]:
    """Show a bar on a terminal, but only for work that takes longer than two seconds."""
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=people, transient=True)
    task = bar.add_task("reading", total=None)
    start = time.monotonic()

    def tell(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if time.monotonic() - start > _PATIENCE_SECONDS and people.is_terminal:
            bar.start()

    try:
        yield tell
    finally:
        bar.stop()


def _summarize(report: "IngestReport") -> None:
    people.print(
        f"{report.files} files in {report.seconds:.1f} s: {report.added} views added, {report.unchanged} unchanged, "
        f"{report.removed} removed, {len(report.refused)} files refused. The silo holds {report.views} views, "
        f"{report.unlabelled} of them without a label.",
        highlight=False,
    )
    for name, problem in report.unreachable.items():
        people.print(
            f"{name} could not be read to its end: {problem}. Nothing of it was removed; the next ingest goes on.",
            style="yellow",
            markup=False,
            highlight=False,
        )
    if report.unmapped:
        words = list(report.unmapped.items())
        shown = ", ".join(f"{word[:40]} ({count})" for word, count in words[:_SHOWN_WORDS])
        more = f" and {len(words) - _SHOWN_WORDS} more" if len(words) > _SHOWN_WORDS else ""
        people.print(
            f"Words that `labels.mapping` does not map, so that they count for nothing: {shown}{more}.",
            style="yellow",
            markup=False,
            highlight=False,
        )
    if report.one_sided:
        people.print(
            "No finding is absent in any image, as far as these labels say: nothing can be learned from them. Name in "
            "`labels.scope` of silo.yaml the findings that were looked for (docs/how-to-label.md), and ingest again.",
            style="bold yellow",
            highlight=False,
        )
    if report.burned_in:
        people.print(
            f"{report.burned_in} of the pictures read now seem to name their patient (`imaging.burned_in` is warn).",
            style="yellow",
            highlight=False,
        )
    if report.unmatched:
        people.print(
            f"{report.unmatched} keys of the label file name no image of this silo.", style="yellow", highlight=False
        )


def _print_refused(data: dict[str, Any]) -> None:
    """Print one line for each refused file: reason, path, detail; separated by tabs, so that they can be sorted."""
    for refusal in data["refused"]:
        path = printable(str(Path(refusal["source"]) / refusal["path"]))  # a member of a zip file may be called anything
        print(refusal["reason"], path, refusal["detail"], sep="\t")  # noqa: T201  (data on stdout)
