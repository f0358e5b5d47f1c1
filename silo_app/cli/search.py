"""`silo search`: one X-ray, its neighbours in all hospitals, and what every hospital did."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silo_app.cases import EncoderVersion
from silo_app.cli.asking import PurposeOption, UserOption, tell_encoder, who_asks_why
from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, SiloOption, emit, people, write_asked_page
from silo_app.cli.narrowing import (
    AbsentOption,
    AgeOption,
    PresentOption,
    SexOption,
    ViewOption,
    YearOption,
    filters_of,
)
from silo_app.cli.refining import (
    CaseOption,
    LessCaseOption,
    LessOption,
    LessWeightOption,
    MoreCaseOption,
    MoreOption,
    MoreWeightOption,
    RegionOption,
    UidOption,
    WhyOption,
    example_of,
    refinement_of,
    told,
)
from silo_app.cli.tables import WholeTable, data_screen
from silo_app.config import SiloHome, load

if TYPE_CHECKING:
    from silo_app.search.find import Found, Wanted
    from silo_app.search.messages import ResultHit, SearchResult, SiloReport

_NOBODY_ANSWERED = 1
_SHORT = 8


def search(
    silo: SiloOption,
    file: Annotated[
        Path | None, typer.Argument(help="A DICOM file; it is read here and goes nowhere.", show_default=False)
    ] = None,
    case: CaseOption = "",
    uid: UidOption = "",
    k: Annotated[int, typer.Option("-k", "--hits", help="How many cases.", min=1, max=1000)] = 10,
    purpose: PurposeOption = "care",
    user: UserOption = "",
    without_patient: Annotated[  # noqa: FBT002  (a flag)
        bool, typer.Option("--without-patient", help="Leave out this silo's own cases of the same patient.")
    ] = False,
    private: Annotated[  # noqa: FBT002  (a flag)
        bool, typer.Option("--private", help="Encrypt the query: silos score it without being able to read it.")
    ] = False,
    budget_ms: Annotated[
        int | None,
        typer.Option(
            help="How long silos may take; by default what the search job gives, mostly 1 s, in private 30 s.",
            min=50,
            max=60_000,
            show_default=False,
        ),
    ] = None,
    view: ViewOption = None,
    sex: SexOption = None,
    age: AgeOption = "",
    year: YearOption = "",
    present: PresentOption = None,
    absent: AbsentOption = None,
    region: RegionOption = "",
    more: MoreOption = None,
    less: LessOption = None,
    more_case: MoreCaseOption = None,
    less_case: LessCaseOption = None,
    more_weight: MoreWeightOption = 0.75,
    less_weight: LessWeightOption = 0.15,
    why: WhyOption = False,  # noqa: FBT002  (a flag)
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Find the most similar cases in all hospitals of the federation.

    The image is embedded here; only the embedding is sent, signed by this silo. A silo that does not answer is named
    and costs only its own hits; this silo's own cases are found also without the federation. The exit status is 1 if no
    silo answered.

    With --view, --sex, --age, --year, --with and --without, every hospital looks among these cases only. A hospital that
    does not release a field refuses to look by it, and so does one with fewer such cases than it may point at.

    A case or a UID of this silo does instead of a file. --region asks by a part of the image, --more and --less move the
    query toward and away from other images (Rocchio 1971): all of it happens here, before anything is sent. Cases that are
    named so are no hits themselves.

    Other hospitals keep back the nearest of their cases, which may be of the query's own patient, and this silo shows all
    of its own to itself: where hospitals are small, its own lead the ranking. So what comes behind it in the other
    hospitals is listed too, as many as there are of this silo in the ranking.

    Where `silo desk` runs, it does the work, with the same result and without loading the encoder anew; --why needs it here.

    With --private not even the embedding can be read outside: it is encrypted here, silos that allow it score all of
    their cases blindly, and are then asked for the cards of the nearest only.

    Examples:
        silo search study/image.dcm --silo kits/st-anna

        silo search study/image.dcm --silo kits/st-anna --private

        silo search image.dcm --silo kits/st-anna -k 20 --purpose research --format json

        silo search image.dcm --silo kits/st-anna --age 40-69 --with Pneumothorax --without Effusion

        silo search --case 3f9c21aa --silo kits/st-anna --region 0.5,0.4,0.95,0.9

        silo search image.dcm --silo kits/st-anna --more good.dcm --less-case 3f9c21aa

        silo search image.dcm --silo kits/st-anna --html similar.html --why
    """
    from silo_app.search.ask import require_wide
    from silo_app.search.desk.client import find_soonest
    from silo_app.search.find import Wanted, as_data, find

    filters = filters_of(views=view, sexes=sex, ages=age, years=year, present=present, absent=absent)
    example = example_of(file, case, uid)
    refinement = refinement_of(
        more=more,
        less=less,
        more_cases=more_case,
        less_cases=less_case,
        more_weight=more_weight,
        less_weight=less_weight,
        region=region,
    )
    if why and html is None:
        raise typer.BadParameter("--why draws into a page: name its file with --html", param_hint="--why")
    require_wide(private=private, filters=filters)
    who, purpose = who_asks_why(user, purpose)
    home = load(silo)
    wanted = Wanted(
        example=example,
        refinement=refinement,
        without_patient=without_patient,
        k=k,
        purpose=purpose,
        user=who,
        budget_ms=budget_ms,
        private=private,
        filters=filters,
    )
    found = find(home, wanted) if why else find_soonest(home, wanted)
    result, data = found.result, as_data(found.result)
    tell_encoder(home, EncoderVersion(result.encoder_version))
    emit(data, output, lambda _: _print(result))

    def page() -> str:
        from silo_app.pages.search import search_page

        pairs = _drawn(home, wanted, found) if why else []
        pictures = [hit.thumbnail for hit in (*result.hits, *result.elsewhere)]
        asked, own = told(purpose, filters, refinement), home.config.name
        return search_page(
            data, private=private, pictures=pictures, why=pairs, asked_with=asked, own=own, itself=found.itself
        )

    if html is not None:
        write_asked_page(html, page)
    if not result.answered:
        raise typer.Exit(_NOBODY_ANSWERED)


def _drawn(home: SiloHome, wanted: "Wanted", found: "Found") -> list[dict[str, Any]]:
    """Return the own silo's hits beside the image asked with, for the page."""
    from silo_app.pages.why import drawn
    from silo_app.search.why import why

    pairs = why(home, wanted.example, found.query, found.result, user=wanted.user) if found.query else []
    own = sum(hit.silo == home.config.name for hit in found.result.hits)
    if not own:
        people.print("No hit is of this silo: there is nothing to explain.", highlight=False)
    elif left_out := own - len(pairs):
        people.print(
            f"{left_out} of this silo's {own} hits are not explained: their images are not in the cache (`silo ingest` "
            "decodes them again), or have left the silo meanwhile.",
            highlight=False,
            soft_wrap=True,
        )
    return drawn(pairs, wanted.refinement.region)


def _print(result: "SearchResult") -> None:
    screen = data_screen()
    for title, hits in (("", result.hits), ("Behind these, in the other hospitals:", result.elsewhere)):
        if not hits:
            continue
        if title:
            screen.print(title, markup=False, highlight=False)
        table = WholeTable("", "similarity", "beyond", "silo", "case", "findings", "view", "sex", "age")
        for rank, hit in enumerate(hits, start=1):
            table.add_row(*_row(rank, hit))
        screen.print(table, markup=False, highlight=False)
        screen.print()
    for report in result.silos:
        screen.print(_state(report), markup=False, highlight=False, soft_wrap=True)
    if result.unheard:
        screen.print(f"The other hospitals were not asked: {result.unheard}", markup=False, highlight=False, soft_wrap=True)


def _row(rank: int, hit: "ResultHit") -> tuple[str, ...]:
    card = hit.card
    present = [finding.value for finding, is_present in card.findings.items() if is_present]
    if card.findings and not present:
        present = ["nothing found"]
    return (
        str(rank),
        f"{hit.score:.4f}",
        "-" if hit.beyond is None else f"{hit.beyond:.1f} %",
        hit.silo,
        hit.case[:_SHORT],
        ", ".join(present) or "-",
        card.position.value if card.position else "-",
        card.sex.value if card.sex else "-",
        card.age_band or "-",
    )


def _state(report: "SiloReport") -> str:
    line = f"{report.silo}: {report.state.value}"
    details: list[Any] = []
    if report.state.value == "answered":
        details = [f"{report.took_ms:.0f} ms", f"{report.released} of {report.indexed} cases"]
        if report.withheld is None:
            details.append("any of the query's own patient kept back")
        elif report.withheld:
            details.append(f"cases of {report.withheld} patient{'s' * (report.withheld != 1)} withheld")
    else:
        details = [text for text in (report.code, report.public) if text]
        details = [f"{report.took_ms:.0f} ms", *details] if report.state.value == "late" else details
    return f"{line} ({', '.join(details)})" if details else line
