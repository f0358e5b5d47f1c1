"""`silo catalogue`: what the silo holds, as counts, and as a page with plots."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from silo_app.catalogue import Catalogue, CatalogueCounts, Refusal
from silo_app.cli.asking import account
from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, SiloOption, emit, people
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load
from silo_app.errors import ConfigInvalid
from silo_app.printable import printable

app = typer.Typer(invoke_without_command=True, help="What the silo holds: counts of usable images, no identifier.")


@app.callback()
def catalogue(
    context: typer.Context,
    silo: Annotated[
        Path | None, typer.Option("--silo", envvar="SILO", help="The silo's startup kit (a folder).", show_default=False)
    ] = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Without a command, the same as `silo catalogue show`.

    Example:
        silo catalogue --silo kits/st-anna
    """
    if context.invoked_subcommand is None:
        if silo is None:
            raise ConfigInvalid("no silo is named", where="--silo", remedy="Name the startup kit with --silo (or SILO).")
        show(silo, None, output)


@app.command()
def show(
    silo: SiloOption,
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show what the silo holds: patients, studies, images, findings, and which files were refused and why.

    Only usable images are counted. No identifier is shown, but small counts are: what this prints is for the silo itself.

    Examples:
        silo catalogue show --silo kits/st-anna --html catalogue.html

        silo catalogue show --silo kits/st-anna --format json
    """
    home = load(silo)
    with Catalogue.open(home.catalogue) as opened:
        counts, refusals = opened.counts(), opened.refusals()
    data = as_data(home.config.name, counts, refusals)
    if html is not None:
        from silo_app.pages.catalogue import catalogue_page
        from silo_app.pages.render import write_page

        people.print(f"wrote {write_page(html, catalogue_page(data))}", highlight=False, markup=False)
    emit(data, output, _print)


@app.command()
def whois(
    case: Annotated[str, typer.Argument(help="A case id of this silo; its first 8 digits do.", show_default=False)],
    silo: SiloOption,
    reason: Annotated[str, typer.Option(help="Why you look it up; it goes into the audit log.", show_default=False)],
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Find the study of one of this silo's own cases: what to ask the hospital's archive for.

    The look-up is in the audit log (who, which case, why) before it is shown. It works only here, with the silo's key.

    Examples:
        silo catalogue whois 3f9c21aa --silo kits/st-anna --reason "consultation with the ward"
    """
    from silo_app.catalogue.whois import look_up

    found = look_up(load(silo), case, user=account(), reason=reason)
    emit(dataclasses.asdict(found), output, _print_study)


_Case = Annotated[
    str, typer.Argument(help="A case id of this silo; its first 8 digits do.", metavar="[CASE]", show_default=False)
]
_Study = Annotated[str, typer.Option("--study-uid", help="Or a Study Instance UID.", show_default=False)]
_Patient = Annotated[
    str, typer.Option("--patient-id", help="Or a Patient ID: all studies, those to come too.", show_default=False)
]
_Reason = Annotated[str, typer.Option(help="Why; it goes into the audit log.", show_default=False)]


@app.command()
def remove(
    silo: SiloOption,
    reason: _Reason,
    case: _Case = "",
    study_uid: _Study = "",
    patient_id: _Patient = "",
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Take a study or a patient out of the silo, for good: a consent withdrawn, an image of the wrong patient.

    It leaves catalogue, cache, and from the next answer on every search; no ingest brings it back, though the archive still
    has it or gives it to another patient later: what was corrected is let in by `silo catalogue restore`. Its vector leaves
    the index files when the index is built next. Encoders that were trained on it stay, and so do files that an archive sent
    to `silo listen`: they are named, to be deleted if they must go too.

    Examples:
        silo catalogue remove 3f9c21aa --silo kits/st-anna --reason "wrong patient"

        silo catalogue remove --patient-id 4711 --silo kits/st-anna --reason "consent withdrawn"
    """
    from silo_app.imaging.recall import Subject, recall

    subject = Subject(case=case, study_uid=study_uid, patient_id=patient_id)
    done = recall(load(silo), subject, user=account(), reason=reason)
    people.print("The vectors leave the index files with `silo index build`.", highlight=False, markup=False)
    if done.sent:
        people.print(
            f"{len(done.sent)} files of it, as the archive sent them, stay in the inbox, so that it can be let in again. "
            "Delete them if they must go too; then it comes back only if the archive sends it anew:",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        for path in done.sent:
            people.print(path, highlight=False, markup=False, soft_wrap=True)
    emit(dataclasses.asdict(done), output, _print_recalled)


@app.command()
def restore(
    silo: SiloOption,
    reason: _Reason,
    case: _Case = "",
    study_uid: _Study = "",
    patient_id: _Patient = "",
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Let in again what was taken out; the next ingest reads it. Name it as it was named then.

    Example:
        silo catalogue restore 3f9c21aa --silo kits/st-anna --reason "it was the right patient"
    """
    from silo_app.imaging.recall import Subject
    from silo_app.imaging.recall import restore as let_in

    subject = Subject(case=case, study_uid=study_uid, patient_id=patient_id)
    emit(dataclasses.asdict(let_in(load(silo), subject, user=account(), reason=reason)), output, _print_recalled)


def _print_recalled(data: dict[str, Any]) -> None:
    table = WholeTable("", "", show_header=False)
    table.add_row({"study": "studies", "patient": "patients"}[data["kind"]], str(data["found"]))
    table.add_row("images taken out", str(data["views"]))
    data_screen().print(table)


def _print_study(data: dict[str, Any]) -> None:
    table = WholeTable("", "", show_header=False)
    for name, value in (("case", data["case"]), *data["study"].items()):
        table.add_row(name.replace("_", " "), value or "-")
    for name in data["files"]:
        table.add_row("file", printable(name))
    data_screen().print(table, markup=False, highlight=False)


def as_data(name: str, counts: CatalogueCounts, refusals: Iterable[Refusal]) -> dict[str, Any]:
    """Return the counts as plain values, with names where enums and None were."""
    reasons = Counter(refusal.reason for refusal in refusals)
    return {
        "silo": name,
        "patients": counts.patients,
        "cases": counts.cases,
        "series": counts.series,
        "views": counts.views,
        "splits": {split.value: count for split, count in counts.splits.items()},
        "positions": {position.value: count for position, count in counts.positions.items()},
        "sexes": {sex.value: count for sex, count in counts.sexes.items()},
        "age_bands": {band or "unknown": count for band, count in counts.age_bands.items()},
        "study_years": {str(year or "unknown"): count for year, count in counts.study_years.items()},
        "devices": {device or "unknown": count for device, count in counts.devices.items()},
        "sizes": {band or "unknown": count for band, count in counts.sizes.items()},
        "brightness": [round(share, 6) for share in counts.brightness],
        "findings": {
            finding.value: {"present": n.present, "absent": n.absent, "unknown": n.unknown}
            for finding, n in counts.findings.items()
        },
        "origins": [
            {"source": o.source, "read_as": o.preset, "sha256": o.digest, "since": o.since, "views": views}
            for o, views in counts.origins.items()
        ],
        "unlabelled": counts.unlabelled,
        "refused": dict(reasons.most_common()),
    }


_SECTIONS = {
    "splits": "split",
    "positions": "view position",
    "sexes": "sex",
    "age_bands": "age",
    "study_years": "year of study",
    "devices": "device",
    "sizes": "longer side in pixels",
    "refused": "refused because of",
}


def _print(data: dict[str, Any]) -> None:
    screen = data_screen()
    screen.print(
        f"{data['silo']}: {data['patients']} patients, {data['cases']} cases, {data['series']} series, "
        f"{data['views']} views "
        f"({data['unlabelled']} without a label)",
        highlight=False,
    )
    for key, title in _SECTIONS.items():
        if data[key]:
            _print_counts(screen, title, data[key], "files" if key == "refused" else "views")
    if data["findings"]:
        _print_findings(screen, data["findings"])
    for origin in data["origins"]:
        screen.print()
        screen.print(
            f"labels of {origin['views']} views: {origin['source']}, read as {origin['read_as']}, "
            f"digest {origin['sha256'][:12] or 'none'}, since {origin['since']}",
            markup=False,
            highlight=False,
        )


def _print_counts(screen: Console, title: str, counts: dict[str, int], what: str) -> None:
    table = WholeTable(title, what)
    table.columns[1].justify = "right"
    for name, count in counts.items():
        table.add_row(name, str(count))
    screen.print()
    screen.print(table, markup=False, highlight=False)


def _print_findings(screen: Console, findings: dict[str, dict[str, int]]) -> None:
    table = WholeTable("finding", "present", "absent", "unknown")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in findings.items():
        table.add_row(name, str(count["present"]), str(count["absent"]), str(count["unknown"]))
    screen.print()
    screen.print(table, markup=False, highlight=False)
