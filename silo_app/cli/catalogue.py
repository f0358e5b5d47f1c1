"""`silo catalogue`: what the silo holds, as counts."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from silo_app.catalogue import Catalogue, CatalogueCounts, Refusal
from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit
from silo_app.config import load


def catalogue(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Show what the silo holds: patients, cases, views, findings, and which files were refused and why.

    Only usable images are counted; no identifier is shown.

    Examples:
        silo catalogue --silo kits/st-anna

        silo catalogue --silo kits/st-anna --format json
    """
    home = load(silo)
    with Catalogue.open(home.catalogue) as opened:
        counts, refusals = opened.counts(), opened.refusals()
    emit(as_data(home.config.name, counts, refusals), output, _print)


def as_data(name: str, counts: CatalogueCounts, refusals: Iterable[Refusal]) -> dict[str, Any]:
    """Return the counts as plain values, with names where enums and None were."""
    reasons = Counter(refusal.reason for refusal in refusals)
    return {
        "silo": name,
        "patients": counts.patients,
        "cases": counts.cases,
        "views": counts.views,
        "splits": {split.value: count for split, count in counts.splits.items()},
        "positions": {position.value: count for position, count in counts.positions.items()},
        "sexes": {sex.value: count for sex, count in counts.sexes.items()},
        "age_bands": {band or "unknown": count for band, count in counts.age_bands.items()},
        "study_years": {str(year or "unknown"): count for year, count in counts.study_years.items()},
        "devices": {device or "unknown": count for device, count in counts.devices.items()},
        "findings": {
            finding.value: {"present": n.present, "absent": n.absent, "unknown": n.unknown}
            for finding, n in counts.findings.items()
        },
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
    "refused": "refused because of",
}


def _print(data: dict[str, Any]) -> None:
    screen = Console()
    screen.print(
        f"{data['silo']}: {data['patients']} patients, {data['cases']} cases, {data['views']} views "
        f"({data['unlabelled']} without a label)",
        highlight=False,
    )
    for key, title in _SECTIONS.items():
        if data[key]:
            _print_counts(screen, title, data[key], "files" if key == "refused" else "views")
    if data["findings"]:
        _print_findings(screen, data["findings"])


def _print_counts(screen: Console, title: str, counts: dict[str, int], what: str) -> None:
    table = Table(title, what, box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, count in counts.items():
        table.add_row(name, str(count))
    screen.print()
    screen.print(table, markup=False, highlight=False)


def _print_findings(screen: Console, findings: dict[str, dict[str, int]]) -> None:
    table = Table("finding", "present", "absent", "unknown", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in findings.items():
        table.add_row(name, str(count["present"]), str(count["absent"]), str(count["unknown"]))
    screen.print()
    screen.print(table, markup=False, highlight=False)
