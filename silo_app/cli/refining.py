"""What people type to say what is sought and how it is refined, as `Example`, `Refinement`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from silo_app.cli.narrowing import among
from silo_app.policy.filters import Filters

if TYPE_CHECKING:
    from silo_app.search.examples import Example
    from silo_app.search.query import Refinement

__all__ = [
    "CaseOption",
    "LessCaseOption",
    "LessOption",
    "LessWeightOption",
    "MoreCaseOption",
    "MoreOption",
    "MoreWeightOption",
    "RegionOption",
    "UidOption",
    "WhyOption",
    "example_of",
    "refinement_of",
    "told",
]

CaseOption = Annotated[
    str, typer.Option("--case", help="Instead of a file: a case id of this silo; its first 8 digits do.", show_default=False)
]
UidOption = Annotated[
    str,
    typer.Option(
        "--uid", help="Instead of a file: the SOP or Study Instance UID of an image of this silo.", show_default=False
    ),
]
RegionOption = Annotated[
    str,
    typer.Option(
        metavar="LEFT,TOP,RIGHT,BOTTOM", help="Search by this part of the image, in fractions of it.", show_default=False
    ),
]
MoreOption = Annotated[
    list[Path] | None,
    typer.Option("--more", help="More like this DICOM file; may be repeated.", show_default=False),
]
LessOption = Annotated[
    list[Path] | None,
    typer.Option("--less", help="Less like this DICOM file; may be repeated.", show_default=False),
]
MoreCaseOption = Annotated[
    list[str] | None,
    typer.Option("--more-case", help="More like this case of this silo; may be repeated.", show_default=False),
]
LessCaseOption = Annotated[
    list[str] | None,
    typer.Option("--less-case", help="Less like this case of this silo; may be repeated.", show_default=False),
]
MoreWeightOption = Annotated[float, typer.Option(help="What --more counts beside the image's 1.", min=0)]
LessWeightOption = Annotated[float, typer.Option(help="What --less counts.", min=0)]
WhyOption = Annotated[bool, typer.Option("--why", help="Show in the page which places make this silo's own hits similar.")]


def example_of(file: Path | None, case: str, uid: str) -> "Example":
    """Return what is sought. Raises `typer.BadParameter` unless exactly one thing says it."""
    from silo_app.search.examples import Example

    if sum(bool(value) for value in (file, case, uid)) != 1:
        raise typer.BadParameter("say what is sought once: a DICOM FILE, or --case, or --uid")
    return Example(file=file, case=case, uid=uid)


def refinement_of(
    *,
    more: Sequence[Path] | None = None,
    less: Sequence[Path] | None = None,
    more_cases: Sequence[str] | None = None,
    less_cases: Sequence[str] | None = None,
    more_weight: float = 0.75,
    less_weight: float = 0.15,
    region: str = "",
) -> "Refinement":
    """Return the refinement. Raises `ConfigInvalid` for a region or weights that are none."""
    from silo_app.encoder.region import Region
    from silo_app.search.examples import Example
    from silo_app.search.query import Refinement
    from silo_app.search.rocchio import Weights

    def examples(files: Sequence[Path] | None, cases: Sequence[str] | None) -> tuple[Example, ...]:
        return (*(Example(file=file) for file in files or ()), *(Example(case=case) for case in cases or ()))

    return Refinement(
        more=examples(more, more_cases),
        less=examples(less, less_cases),
        weights=Weights(more=more_weight, less=less_weight),
        region=Region.parse(region) if region else None,
    )


def told(purpose: str, filters: Filters, refinement: "Refinement | None" = None) -> str:
    """Return one sentence for a page about what was asked and why, without names of files."""
    parts = [f"Asked for {purpose}", among(filters)]
    if refinement is None:
        return f"{', '.join(parts)}."
    if refinement.region is not None:
        parts.append(f"by the region {refinement.region} of the image")
    if refinement.more:
        parts.append(f"more like {len(refinement.more)} example{'s' * (len(refinement.more) != 1)}")
    if refinement.less:
        parts.append(f"less like {len(refinement.less)} example{'s' * (len(refinement.less) != 1)}")
    return f"{', '.join(parts)}."
