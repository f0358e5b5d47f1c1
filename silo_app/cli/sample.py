"""`silo sample`: phantom radiographs, or image collections, as hospitals' DICOM archives."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from silo_app.cli.edge import writable_folder
from silo_app.errors import SampleInvalid

if TYPE_CHECKING:
    from silo_app.imaging.samples.archive import Archive
    from silo_app.imaging.samples.records import Skipped

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make sample hospitals: phantoms from physics, or your own images as DICOM.",
)
console = Console(stderr=True)
Format = Literal["text", "json"]
SHOWN = 10
"""Skipped images that are printed; all are in skipped.csv."""

Out = Annotated[
    Path,
    typer.Argument(
        help="A new folder; every hospital becomes a folder in it.", callback=writable_folder, show_default=False
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed makes the same files, byte for byte.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes [default: one for each core].")]
Output = Annotated[Format, typer.Option("--format", help="What to print on standard output.")]


@app.command()
def phantom(
    out: Out,
    *,
    hospitals: Annotated[int | None, typer.Option(min=1, help="How many hospitals [default: 3].")] = None,
    studies: Annotated[
        str, typer.Option(help="Studies of each hospital: one number, or one for each (200,120,80).")
    ] = "240",
    seed: Seed = 0,
    workers: Workers = None,
    output: Output = "text",
) -> None:
    """Make hospitals of synthetic chest radiographs, computed from physics and marked as synthetic.

    Every hospital has its own X-ray room, its own way of writing DICOM and its own mix of findings (Cardiomegaly,
    Consolidation, Effusion, Mass, Nodule, Pneumothorax). What each study shows is in `labels.csv`.

    Example: `silo sample phantom sample --hospitals 3 --studies 240`
    """
    from silo_app.imaging.samples.phantom import make_phantoms

    numbers = _numbers(studies, "--studies")
    with _progress("Phantoms") as progress:
        archives = make_phantoms(
            out,
            hospitals=hospitals or (len(numbers) if len(numbers) > 1 else 3),
            studies=numbers[0] if len(numbers) == 1 else numbers,
            seed=seed,
            progress=progress,
            workers=workers or os.cpu_count() or 1,
        )
    _report(archives, out, output)


@app.command("import")
def import_(
    sets: Annotated[
        list[Path], typer.Argument(help="Zips or folders with images (PNG, JPEG) and a CSV.", show_default=False)
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            help="A new folder; every hospital becomes a folder in it.", callback=writable_folder, show_default=False
        ),
    ],
    hospitals: Annotated[
        str | None, typer.Option(help="How many hospitals [default: 3]; with --separate one number for each set (2,1).")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Label skew: 0.1 very unlike hospitals, 100 all alike (Dirichlet).")] = 1.0,
    separate: Annotated[bool, typer.Option("--separate", help="Make every set hospitals of its own.")] = False,
    seed: Seed = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many images of each set.")] = None,
    csv: Annotated[str | None, typer.Option(help="The CSV's name in the set [default: the one that is there].")] = None,
    file_column: Annotated[str | None, typer.Option(help="Column of the images' names [file].")] = None,
    patient_column: Annotated[str | None, typer.Option(help="Column of patients [patient_id].")] = None,
    findings_column: Annotated[str | None, typer.Option(help="Column of findings [findings].")] = None,
    separator: Annotated[str | None, typer.Option(help="What stands between findings [|].")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help='"local=Shared", as often as needed.')] = None,
    scope: Annotated[
        str | None, typer.Option(help="Findings that the labels speak of, with commas [all that occur].")
    ] = None,
    age_column: Annotated[str | None, typer.Option(help="Column of ages in years.")] = None,
    sex_column: Annotated[str | None, typer.Option(help="Column of sexes (F, M).")] = None,
    view_column: Annotated[str | None, typer.Option(help="Column of views (PA, AP).")] = None,
    workers: Workers = None,
    output: Output = "text",
) -> None:
    """Turn sets of images with a CSV of labels into hospitals' DICOM archives, divided by patient.

    The columns of the pediatric pneumonia set and of ChestX-ray14 are recognised; name others by option.

    Example: `silo sample import pediatric-chest-xray.zip --out sample --hospitals 3 --alpha 0.5`

    Example: `silo sample import xrays --out sample --findings-column dx --map "clear=No Finding"`
    """
    from silo_app.imaging.samples.columns import finding, parse_mapping
    from silo_app.imaging.samples.image_set import ImageSet
    from silo_app.imaging.samples.images import import_images
    from silo_app.imaging.samples.leftovers import read_skipped, read_unmapped

    given = {
        "file": file_column,
        "patient": patient_column,
        "findings": findings_column,
        "separator": separator,
        "mapping": parse_mapping(map_) if map_ else None,
        "scope": tuple(finding(name) for name in scope.split(",")) if scope else None,
        "age": age_column,
        "sex": sex_column,
        "view": view_column,
    }
    columns = {name: value for name, value in given.items() if value is not None}
    numbers = _numbers(hospitals or ("1" if separate else "3"), "--hospitals")
    with _progress("Images") as progress:
        archives = import_images(
            [ImageSet(path=path, csv=csv, columns=columns) for path in sets],
            out,
            hospitals=numbers[0] if len(numbers) == 1 else numbers,
            alpha=alpha,
            separate=separate,
            seed=seed,
            limit=limit,
            progress=progress,
            workers=workers or os.cpu_count() or 1,
        )
    _leftovers(read_skipped(out), read_unmapped(out))
    _report(archives, out, output)


def _numbers(text: str, option: str) -> list[int]:
    """Return the numbers in "200,120,80". Raises `SampleInvalid`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SampleInvalid(
            f"{text!r} is not a number, or numbers with commas", where=option, remedy=f"Write, for example, {option} 3."
        )
    return [int(part) for part in parts]


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function that moves a bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total, what: bars.update(bar, completed=done, total=total, description=f"{title}: {what}")


def _leftovers(skipped: "Sequence[Skipped]", unmapped: Mapping[str, int]) -> None:
    """Tell people which images were skipped, and which names of findings mean nothing to the federation."""
    for one in skipped[:SHOWN]:
        console.print(f"skipped {one.set}/{one.file}: {one.reason}", markup=False, highlight=False)
    if len(skipped) > SHOWN:
        console.print(f"... {len(skipped)} skipped in all; see skipped.csv", markup=False)
    for name, rows in unmapped.items():
        text = f"{name!r} in {rows} rows is not in the shared vocabulary; map it with --map {name!r}=..."
        console.print(text, markup=False, highlight=False)


def _report(archives: "Sequence[Archive]", out: Path, output: Format) -> None:
    """Print what was made: an envelope for programs, or a line for each hospital."""
    if output == "json":
        data = {"out": str(out), "archives": [_described(one) for one in archives]}
        typer.echo(json.dumps({"schema_version": 1, "status": "ok", "data": data}))
        return
    for one in archives:
        typer.echo(f"{one.path}: {one.patients} patients, {one.studies} studies, {one.images} images")
    others = ", and so for the others" if len(archives) > 1 else ""
    console.print(f"How a silo reads {archives[0].name}, for its local/silo.yaml{others}:\n", highlight=False)
    console.print(_for_silo(archives[0]), highlight=False, markup=False, soft_wrap=True)


def _for_silo(archive: "Archive") -> str:
    """Return what silo.yaml says of an archive: its source, and its labels as far as they are not as by default."""
    said = archive.silo()
    given = archive.labels.model_dump(mode="json", exclude_defaults=True) | {"path": said["labels"]["path"]}
    content = {"sources": said["sources"], "labels": {"kind": "csv", **given}}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _described(one: "Archive") -> dict[str, object]:
    fields = ("name", "display_name", "synthetic", "patients", "studies", "images")
    return {"path": str(one.path), **{field: getattr(one, field) for field in fields}}
