"""`silo survey`: what silos told, side by side; and for a silo's owner, what it has told and what that has spent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, SiloOption, emit, people
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load

if TYPE_CHECKING:
    from silo_app.privacy.result import SurveyResult

app = typer.Typer(no_args_is_help=True, help="Surveys (`jobs/survey`): the federation's picture, and a silo's part in it.")


@app.command()
def show(
    result: Annotated[Path, typer.Argument(help="The folder that `silo job download` printed, or its survey.json.")],
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show what the silos told, side by side, and how unlike they are.

    Counts are of patients, each in one cell of every table; a dash stands for fewer than the silo's minimum count. The
    Jensen-Shannon distance is 0 for equal shares and 1 for tables without a common cell; beside it stands what chance and
    noise alone would give for silos of these sizes.

    Examples:
        silo survey show 7f2c1e9a-0000/workspace --html survey.html

        silo survey show survey.json --format json
    """
    from silo_app.privacy.result import read_result

    data = as_data(read_result(result))
    if html is not None:
        from silo_app.pages.render import write_page
        from silo_app.pages.survey import survey_page

        people.print(f"wrote {write_page(html, survey_page(data))}", highlight=False, markup=False)
    emit(data, output, _print)


@app.command()
def status(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Show what this silo tells surveys: since when, on which terms, and how much privacy that has spent.

    Example:
        silo survey status --silo kits/st-anna
    """
    from silo_app.privacy.survey import drawn_before

    home = load(silo)
    settings, drawn = home.config.survey, drawn_before(home)
    data = {
        "silo": home.config.name,
        "policy": settings.model_dump(),
        "drawn": drawn.at.isoformat(timespec="seconds") if drawn else None,
        "epsilon": drawn.epsilon if drawn else None,
        "spent": drawn.spent if drawn else 0.0,
    }
    emit(data, output, _print_status)


@app.command()
def renew(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Draw a new release now, after a large ingest; it spends `survey.epsilon` again, for ever.

    Example:
        silo survey renew --silo kits/st-anna
    """
    from silo_app.privacy.survey import renew as draw

    home = load(silo)
    drawn = draw(home)
    data = {"silo": home.config.name, "drawn": drawn.at.isoformat(timespec="seconds"), "spent": drawn.spent}
    emit(data, output, lambda d: print(f"drawn {d['drawn']}; spent {d['spent']:g} in all"))  # noqa: T201  (data on stdout)


def as_data(result: "SurveyResult") -> dict[str, Any]:
    """Return a survey as plain values, with the distances of every two silos."""
    from silo_app.privacy.questions import TABLES
    from silo_app.privacy.unlike import compare

    epsilons = {name: answer.epsilon for name, answer in result.silos.items()}
    patients = {name: answer.counts["patients"][0] for name, answer in result.silos.items() if "patients" in answer.counts}
    tables = []
    for table in TABLES:
        told = result.told(table)
        everybody = patients if table.parts == 1 else {}  # who is in no cell of the others was not measured
        pairs = compare(told, table.parts, epsilons, everybody) if len(table.labels) > 1 else []
        tables.append(
            {
                "name": table.name,
                "title": table.title,
                "labels": list(table.labels),
                "ordered": table.ordered,
                "parts": table.parts,
                "counts": told,
                "distances": [
                    {
                        "silos": [pair.one, pair.other],
                        "distance": round(pair.distance, 4),
                        "by_chance": round(pair.by_chance, 4),
                        "clear": pair.clear,
                    }
                    for pair in pairs
                ],
            }
        )
    return {
        "unit": "patients",
        "silos": {
            name: {"min_count": a.min_count, "epsilon": a.epsilon, "spent": a.spent, "day": a.day}
            for name, a in sorted(result.silos.items())
        },
        "refused": dict(result.refused),
        "missing": list(result.missing),
        "tables": tables,
    }


def _print(data: dict[str, Any]) -> None:
    screen = data_screen()
    for name, terms in data["silos"].items():
        noise = f"noise of epsilon {terms['epsilon']:g}" if terms["epsilon"] is not None else "no noise"
        screen.print(f"{name}: drawn {terms['day']}, {noise}, counts from {terms['min_count']}", highlight=False)
    for name, why in data["refused"].items():
        screen.print(f"{name}: refused. {why}", highlight=False, markup=False)
    for name in data["missing"]:
        screen.print(f"{name}: no answer", highlight=False)
    for table in data["tables"]:
        if any(any(cells) for cells in table["counts"].values()):
            _print_table(screen, table)
    _print_distances(screen, data)


def _print_table(screen: Console, table: dict[str, Any]) -> None:
    unit = "shares of the area" if table["parts"] > 1 else "patients"
    shown = WholeTable(f"{table['title']} ({unit})", *table["counts"])
    for column in shown.columns[1:]:
        column.justify = "right"
    for place, label in enumerate(table["labels"]):
        cells = [_cell(counts, place, table["parts"]) for counts in table["counts"].values()]
        if any(cell != "-" for cell in cells):
            shown.add_row(label, *cells)
    screen.print()
    screen.print(shown, markup=False, highlight=False)


def _cell(counts: list[int], place: int, parts: int) -> str:
    if parts > 1:
        return f"{100 * counts[place] / sum(counts):.1f} %" if sum(counts) else "-"
    return str(counts[place]) if counts[place] else "-"


def _print_distances(screen: Console, data: dict[str, Any]) -> None:
    """Print the distances that chance does not explain, the largest first, and how many others there are."""
    rows = [(pair, table["title"]) for table in data["tables"] for pair in table["distances"]]
    clear = sorted((row for row in rows if row[0]["clear"]), key=lambda row: -row[0]["distance"])
    if clear:
        shown = WholeTable("how unlike", "silos", "distance", "by chance")
        for pair, title in clear:
            shown.add_row(title, " and ".join(pair["silos"]), f"{pair['distance']:.2f}", f"{pair['by_chance']:.2f}")
        screen.print()
        screen.print(shown, markup=False, highlight=False)
    if rows:
        screen.print()
        screen.print(
            f"{len(rows) - len(clear)} of {len(rows)} distances are such as chance and noise give (--format json has all)",
            highlight=False,
        )


def _print_status(data: dict[str, Any]) -> None:
    policy = data["policy"]
    screen = data_screen()
    if not policy["join"]:
        screen.print(f"{data['silo']} answers no survey (survey.join is false)", highlight=False)
    elif data["drawn"] is None:
        screen.print(f"{data['silo']} has told no survey anything yet", highlight=False)
    else:
        screen.print(f"{data['silo']} tells what was drawn {data['drawn']}", highlight=False)
    noise = (
        "exact counts, without noise" if policy["epsilon"] is None else f"noise of epsilon {policy['epsilon']:g} a release"
    )
    screen.print(f"{noise}; counts below {policy['min_count']} are not told", highlight=False)
    screen.print(f"spent: {data['spent']:g} of {policy['epsilon_total']:g}", highlight=False)
