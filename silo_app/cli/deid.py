"""`silo deid`, `silo deid-check`: radiographs without the patient, and the evidence of what remains."""

import dataclasses
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people, writable_file, writable_folder
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load
from silo_app.errors import ConfigInvalid

_NOTHING_USABLE = 2
_OPTIONAL_SILO = Annotated[
    Path | None, typer.Option("--silo", envvar="SILO", help="The silo's startup kit (a folder).", show_default=False)
]


def deid(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="The folder to write into; it is made private (0700).", callback=writable_folder, show_default=False
        ),
    ],
    silo: SiloOption,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Write copies of radiographs without the patient: DICOM PS3.15 Basic Profile, names by the silo's key.

    A file that the silo would not take is not written, and listed with its reason. Look at the pictures before you give
    them away: what is burned into them stays (docs/explanation-deidentification.md).

    Examples:
        silo deid /data/study --out clean --silo kits/st-anna
    """
    from silo_app.imaging.deidentify.release import files_in, release

    done = release(load(silo), files_in(paths), out)
    people.print(f"{len(done.written)} files written, {len(done.refused)} refused", highlight=False)
    if done.burned_in:
        people.print(f"{done.burned_in} of them seem to name their patient in the picture.", style="yellow", highlight=False)
    emit({"out": str(out), **dataclasses.asdict(done)}, output, _print_released)
    if not done.written:
        raise typer.Exit(_NOTHING_USABLE)


def _print_released(data: dict[str, Any]) -> None:
    for name in data["written"]:
        print(Path(data["out"]) / name)  # noqa: T201  (data on stdout)
    for file, reason, detail in data["refused"]:
        people.print(f"{reason}\t{file}\t{detail}", markup=False, highlight=False, soft_wrap=True)


def deid_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="DICOM files or folders; none: the silo's stores.")] = None,
    silo: _OPTIONAL_SILO = None,
    ocr: Annotated[bool, typer.Option("--ocr", help="Read the pictures for text.")] = False,  # noqa: FBT002  (a flag)
    show_values: Annotated[  # noqa: FBT002  (a flag)
        bool, typer.Option("--show-values", help="Show values instead of their shapes: identifiers, if any remain.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page into this file.", callback=writable_file, show_default=False)
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show what would remain of files after de-identification, or what the silo keeps: evidence for a privacy officer.

    Nothing is written but the page. Values are shown as shapes, A for a letter and 9 for a digit.

    Examples:
        silo deid-check /data/study --html evidence.html

        silo deid-check --silo kits/st-anna
    """
    data = _of_files(paths, ocr=ocr, show_values=show_values) if paths else _of_silo(silo)
    if html is not None:
        from silo_app.pages.deid import evidence_page
        from silo_app.pages.render import write_page

        people.print(f"wrote {write_page(html, evidence_page(data))}", highlight=False, markup=False)
    emit(data, output, _print)


def _of_files(paths: list[Path], *, ocr: bool, show_values: bool) -> dict[str, Any]:
    from silo_app.catalogue import SiloKey
    from silo_app.config import ImagingSettings
    from silo_app.imaging.burned_in import check_reader
    from silo_app.imaging.deidentify.evidence import examine
    from silo_app.imaging.deidentify.names import Names
    from silo_app.imaging.deidentify.profile import METHOD
    from silo_app.imaging.deidentify.release import files_in

    check_reader(ImagingSettings(ocr=ocr))
    names = Names(SiloKey(secrets.token_bytes(32)))  # nothing is kept: any key shows what remains
    found = examine(files_in(paths), names, ocr=ocr, show_values=show_values).as_data()
    unsaid = "nothing found" if ocr else "not said by tags; not read"
    found["burned_in"] = {why or unsaid: count for why, count in found["burned_in"].items()}
    return {"kind": "files", "method": METHOD, "ocr": ocr, **found}


def _of_silo(silo: Path | None) -> dict[str, Any]:
    from silo_app.imaging.deidentify.stores import columns, stores

    if silo is None:
        raise ConfigInvalid("neither files nor a silo is named", remedy="Name DICOM files, or a silo with --silo (or SILO).")
    home = load(silo)
    return {
        "kind": "silo",
        "silo": home.config.name,
        "burned_in": home.config.imaging.burned_in,
        "ocr": home.config.imaging.ocr,
        "columns": [dataclasses.asdict(column) for column in columns(home.catalogue)],
        "stores": [dataclasses.asdict(store) for store in stores(home)],
    }


def _print(data: dict[str, Any]) -> None:
    screen = data_screen()
    if data["kind"] == "silo":
        _table(
            screen, ("store", "files", "bytes", "open to others"), (list(map(str, row.values())) for row in data["stores"])
        )
        rows = ([row["name"], str(row["rows"]), row["meaning"], " | ".join(row["shapes"])] for row in data["columns"])
        _table(screen, ("column", "rows", "what it is", "looks like"), rows)
        return
    screen.print(f"{data['files']} files, {data['taken']} taken; {data['method']}", highlight=False, markup=False)
    for title in ("refused", "actions", "burned_in"):
        _table(screen, (title.replace("_", " "), "files" if title != "actions" else "attributes"), _pairs(data[title]))
    rows = ([name, str(found["files"]), " | ".join(found["examples"])] for name, found in data["remaining"].items())
    _table(screen, ("what remains", "files", "looks like"), rows)


def _pairs(counts: dict[str, int]) -> list[list[str]]:
    return [[name, str(count)] for name, count in counts.items()]


def _table(screen: Console, titles: tuple[str, ...], rows: Any) -> None:
    table = WholeTable(*titles)
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        screen.print(table, markup=False, highlight=False)
        screen.print()
