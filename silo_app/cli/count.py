"""`silo count`: how many patients have cases like this one, in all hospitals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silo_app.cases import EncoderVersion
from silo_app.cli.asking import PurposeOption, UserOption, tell_encoder, who_asks_why
from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, SiloOption, emit, write_asked_page
from silo_app.cli.narrowing import (
    AbsentOption,
    AgeOption,
    PresentOption,
    SexOption,
    ViewOption,
    YearOption,
    filters_of,
)
from silo_app.cli.refining import told
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import load

if TYPE_CHECKING:
    from silo_app.search.counts.result import CountResult, SiloCount, Summed

_NOBODY_ANSWERED = 1


def count(
    file: Annotated[Path, typer.Argument(help="A DICOM file; it is read here and goes nowhere.")],
    silo: SiloOption,
    alike: Annotated[
        float, typer.Option(help="More alike than so many percent of a hospital's random pairs; in tenths.", min=0, max=100)
    ] = 95.0,
    similarity: Annotated[
        float, typer.Option(help="And at least so similar; in hundredths.", min=-1, max=1, show_default=False)
    ] = -1.0,
    by_finding: Annotated[  # noqa: FBT002  (a flag)
        bool, typer.Option("--by-finding", help="Also count those with each finding; it costs a number for each.")
    ] = False,
    purpose: PurposeOption = "care",
    user: UserOption = "",
    budget_ms: Annotated[int, typer.Option(help="How long silos may take.", min=50, max=60_000)] = 5000,
    view: ViewOption = None,
    sex: SexOption = None,
    age: AgeOption = "",
    year: YearOption = "",
    present: PresentOption = None,
    absent: AbsentOption = None,
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Count the patients with cases like this one, in all hospitals of the federation.

    Every hospital counts its own patients and tells a number with noise, or that it is fewer than it tells. A patient who
    was in two hospitals counts twice. The exit status is 1 if no hospital answered.

    Examples:
        silo count image.dcm --silo kits/st-anna --with Pneumothorax

        silo count image.dcm --silo kits/st-anna --by-finding --alike 99

        silo count image.dcm --silo kits/st-anna --age 40-69 --format json
    """
    from silo_app.search.counts.ask import count_file

    who, purpose = who_asks_why(user, purpose)
    filters = filters_of(views=view, sexes=sex, ages=age, years=year, present=present, absent=absent)
    home = load(silo)
    result = count_file(
        home,
        file,
        alike=_coarse(alike, 1, "--alike", "tenths"),
        similarity=_coarse(similarity, 2, "--similarity", "hundredths"),
        filters=filters,
        by_finding=by_finding,
        purpose=purpose,
        user=who,
        budget_ms=budget_ms,
    )
    tell_encoder(home, EncoderVersion(result.encoder_version))
    data = as_data(result)
    emit(data, output, lambda _: _print(result))
    if html is not None:
        from silo_app.pages.count import count_page

        write_asked_page(html, lambda: count_page(data, asked_with=told(purpose, filters)))
    if not result.answers:
        raise typer.Exit(_NOBODY_ANSWERED)


def as_data(result: "CountResult") -> dict[str, Any]:
    """Return what programs are given, and the page is made of."""
    return {
        **result.model_dump(mode="json", exclude={"silos"}),
        "patients": result.patients.model_dump(mode="json") if result.answers else None,
        "findings": {finding.value: total.model_dump(mode="json") for finding, total in result.findings.items()},
        "silos": [
            {
                **silo.report.model_dump(mode="json", exclude={"released", "withheld"}),
                "told": silo.told.model_dump(mode="json", include={"min_count", "epsilon", "patients", "findings"})
                if silo.told
                else None,
            }
            for silo in result.silos
        ],
    }


def _coarse(value: float, digits: int, option: str, words: str) -> float:
    if abs(value - round(value, digits)) > 1e-9:
        raise typer.BadParameter(f"{value:g} is not in {words}: silos compare no closer", param_hint=option)
    return round(value, digits)


def _print(result: "CountResult") -> None:
    screen = data_screen()
    counted = f"patients: {_words(result.patients)}" if result.answers else "No hospital counted."
    screen.print(counted, markup=False, highlight=False)
    if result.findings:
        table = WholeTable("finding", "patients", "hospitals that tell")
        for finding, total in result.findings.items():
            table.add_row(finding.value, _words(total), str(total.silos))
        screen.print(table, markup=False, highlight=False)
    screen.print()
    for silo in result.silos:
        screen.print(_state(silo), markup=False, highlight=False, soft_wrap=True)


def _words(total: "Summed") -> str:
    between = f"{total.least}" if total.least == total.most else f"{total.least} to {total.most}"
    return f"{between} (noise: within {total.noise})" if total.noise else between


def _state(silo: "SiloCount") -> str:
    report, told = silo.report, silo.told
    if told is None:
        details = [text for text in (report.code, report.public) if text]
        return f"{report.silo}: {report.state.value}" + (f" ({', '.join(details)})" if details else "")
    number = f"fewer than {told.min_count}" if told.patients is None else f"about {told.patients}"
    return f"{report.silo}: {number} patients of {report.indexed} cases ({report.took_ms:.0f} ms)"
