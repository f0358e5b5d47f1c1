"""`silo labels`: what a label file says, before anything is labelled with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from silo_app.catalogue import Catalogue, SiloKey, Vault
from silo_app.cli.edge import FormatOption, OutputFormat, emit
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import CsvLabels, NoLabels, PresetLabels, SiloHome, TagLabels, load
from silo_app.errors import ConfigInvalid
from silo_app.settings.labels import Uncertain

if TYPE_CHECKING:
    from silo_app.imaging.labels import LabelSettings, LabelTable

app = typer.Typer(no_args_is_help=True, help="Label files: what they say, and how their words become findings.")

_WRONG = 2
_SHOWN = 20


@app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The label file; by default the one in silo.yaml.", show_default=False)
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Read it as a published data set brings it.")] = None,
    images: Annotated[Path | None, typer.Option(help="For `mimic`: the metadata CSV with dicom_id and study_id.")] = None,
    uncertain: Annotated[
        Uncertain, typer.Option(help="What an uncertain finding counts as, for `chexpert` and `mimic`.")
    ] = Uncertain.IGNORE,
    silo: Annotated[
        Path | None,
        typer.Option(
            "--silo", envvar="SILO", help="The silo's startup kit: read as its silo.yaml says, and match its images."
        ),
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show what a label file says: findings present and absent, words that nobody mapped, and what is wrong where.

    Nothing is written. With `--silo`, it also says how many of the silo's images the file names. The exit status is 2 if the
    file cannot be used as it is.

    Examples:
        silo labels check Data_Entry_2017.csv --preset nih

        silo labels check train.csv --preset chexpert --uncertain u-ones --format json

        silo labels check --silo kits/st-anna
    """
    from silo_app.imaging.labels import read_labels

    home = load(silo) if silo else None
    settings, path = _settings(home, file, preset, images, uncertain)
    joined = settings.images if isinstance(settings, PresetLabels) else None
    table = read_labels(settings, path, images=home.resolve(joined) if home and joined else joined, lenient=True)
    data = as_data(table) | ({"silo": _matched(home, table)} if home and home.catalogue.is_file() else {})
    emit(data, output, _print)
    if any(issue.fatal for issue in table.issues):
        raise typer.Exit(_WRONG)


@app.command()
def presets(output: FormatOption = OutputFormat.TABLE) -> None:
    """List the published data sets whose label files are known, and what is made of each.

    Example:
        silo labels presets
    """
    from silo_app.imaging.labels.presets import PRESETS

    data = [
        {
            "preset": name,
            "version": layout.name,
            "about": layout.about,
            "columns": list(layout.columns),
            "scope": [finding.value for finding in layout.scope],
        }
        for name, layout in PRESETS.items()
    ]
    emit({"presets": data}, output, _print_presets)


def as_data(table: "LabelTable") -> dict[str, Any]:
    """Return what a label file says as plain values; no key and no sentence of a report is in it."""
    from silo_app.imaging.labels import as_reported
    from silo_app.imaging.labels.read import counted

    return {
        "file": table.path.name,
        "read_as": table.origin.preset,
        "sha256": table.origin.digest,
        "keyed_by": table.keyed_by,
        "rows": table.rows,
        "keys": len(table.keys),
        "without_findings": sum(not labels for labels in table.keys.values()),
        "findings": counted(table.keys),
        "unmapped": as_reported(table.unmapped),
        "no_shared_name": as_reported(table.outside),
        "issue_count": max(table.issue_count, len(table.issues)),
        "issues": [
            {"line": issue.line, "column": issue.column, "problem": issue.problem, "fatal": issue.fatal}
            for issue in table.issues
        ],
    }


def _settings(
    home: SiloHome | None, file: Path | None, preset: str | None, images: Path | None, uncertain: Uncertain
) -> "tuple[LabelSettings, Path]":
    """Return how to read which file: as the options say, else as the silo's configuration does."""
    if preset is not None and file is not None:
        return _preset(preset, file, images, uncertain), file
    labels = home.config.labels if home else None
    if (labels is None or isinstance(labels, NoLabels)) and file is not None:
        return CsvLabels(path=file), file
    if home is None or labels is None or isinstance(labels, NoLabels | TagLabels):
        raise ConfigInvalid(
            "there is no label file to check",
            remedy="Name a file, and --preset or --silo; labels in DICOM attributes are read by `silo ingest`.",
        )
    return labels, file or home.resolve(labels.path)


def _preset(preset: str, file: Path, images: Path | None, uncertain: Uncertain) -> PresetLabels:
    from silo_app.imaging.labels.presets import PRESETS

    if preset not in PRESETS:
        raise ConfigInvalid(
            f"there is no preset {preset!r}", where="--preset", remedy=f"The presets are {', '.join(PRESETS)}."
        )
    return PresetLabels.model_validate({"preset": preset, "path": file, "images": images, "uncertain": uncertain})


def _matched(home: SiloHome, table: "LabelTable") -> dict[str, int]:
    """Return how many of the silo's images the file names."""
    key = SiloKey.load(home.key)
    with Catalogue.open(home.catalogue, vault=Vault(key)) as catalogue:
        views = catalogue.identities()
    labels, unmatched = table.matched(views, key.name)
    return {"views": len(views), "labelled": sum(bool(known) for known in labels.values()), "keys_without_image": unmatched}


def _print(data: dict[str, Any]) -> None:
    screen = data_screen()
    screen.print(
        f"{data['file']} read as {data['read_as']}: {data['rows']} rows, {data['keys']} keys ({data['keyed_by']}), "
        f"{data['without_findings']} of them without a finding that is known",
        highlight=False,
        markup=False,
    )
    if "silo" in data:
        own = data["silo"]
        screen.print(
            f"of this silo's {own['views']} images it labels {own['labelled']}; {own['keys_without_image']} keys name none",
            highlight=False,
        )
    _print_table(
        screen,
        ("finding", "present", "absent"),
        [(name, str(n["present"]), str(n["absent"])) for name, n in data["findings"].items()],
    )
    for title, name in (("word that nobody mapped", "unmapped"), ("word without a shared name", "no_shared_name")):
        words = [(word, str(count)) for word, count in list(data[name].items())[:_SHOWN]]
        _print_table(screen, (title, "times"), words)
    issues = sorted(data["issues"], key=lambda issue: not issue["fatal"])
    lines = [
        (str(issue["line"] or ""), issue["column"], ("WRONG: " if issue["fatal"] else "") + issue["problem"])
        for issue in issues[:_SHOWN]
    ]
    _print_table(screen, ("line", "column", f"what is odd ({data['issue_count']} in all)"), lines)


def _print_table(screen: Console, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    if rows:
        table = WholeTable(*head)
        for row in rows:
            table.add_row(*row)
        screen.print()
        screen.print(table, markup=False, highlight=False)


def _print_presets(data: dict[str, Any]) -> None:
    table = WholeTable("preset", "what is read, and what is made of it")
    for one in data["presets"]:
        table.add_row(one["preset"], one["about"])
    data_screen().print(table, markup=False, highlight=False)
