"""What people type to narrow a search, as `Filters`."""

import re
from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import ValidationError

from silo_app.cases import Finding, Sex, ViewPosition
from silo_app.policy.filters import AGE_BANDS, Filters

__all__ = [
    "AbsentOption",
    "AgeOption",
    "PresentOption",
    "SexOption",
    "ViewOption",
    "YearOption",
    "among",
    "filters_of",
]

ViewOption = Annotated[
    list[ViewPosition] | None, typer.Option("--view", help="Only cases of this view; may be repeated.", show_default=False)
]
SexOption = Annotated[
    list[Sex] | None, typer.Option("--sex", help="Only cases of this sex; may be repeated.", show_default=False)
]
AgeOption = Annotated[
    str,
    typer.Option("--age", help="Only these ages, in whole decades: 40-69, or 80- for all from 80 on.", show_default=False),
]
YearOption = Annotated[
    str, typer.Option("--year", help="Only studies of these years: 2015-2020, or 2015- or -2020.", show_default=False)
]
PresentOption = Annotated[
    list[str] | None, typer.Option("--with", help="Only cases with this finding; may be repeated.", show_default=False)
]
AbsentOption = Annotated[
    list[str] | None,
    typer.Option("--without", help="Only cases known not to have this finding; may be repeated.", show_default=False),
]

_RANGE = re.compile(r"(\d*)-(\d*)")
_OLDEST = 90


def filters_of(
    *,
    views: Sequence[ViewPosition] | None = None,
    sexes: Sequence[Sex] | None = None,
    ages: str = "",
    years: str = "",
    present: Sequence[str] | None = None,
    absent: Sequence[str] | None = None,
) -> Filters:
    """Return the filters. Raises `typer.BadParameter` naming the option and what it may be."""
    first, last = _range(years, "--year", "2015-2020, 2015- or -2020")
    try:
        return Filters(
            positions=tuple(views or ()),
            sexes=tuple(sexes or ()),
            age_bands=_bands(ages),
            year_from=first,
            year_to=last,
            present=tuple(_finding(name, "--with") for name in present or ()),
            absent=tuple(_finding(name, "--without") for name in absent or ()),
        )
    except ValidationError as error:
        problems = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())
        raise typer.BadParameter(problems) from None


def among(filters: Filters) -> str:
    """Return in words which cases are looked among: "among cases with Pneumothorax, of the view PA"."""
    parts = [
        f"with {_all(filters.present)}" if filters.present else "",
        f"without {_all(filters.absent, 'or')}" if filters.absent else "",
        f"of the view {_all(filters.positions, 'or')}" if filters.positions else "",
        f"of the sex {_all(filters.sexes, 'or')}" if filters.sexes else "",
        f"of the ages {_all(filters.age_bands, 'or')}" if filters.age_bands else "",
        f"from {filters.year_from} on" if filters.year_from is not None else "",
        f"up to {filters.year_to}" if filters.year_to is not None else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f"among cases {said}" if said else "among all cases"


def _all(words: Sequence[str], last: str = "and") -> str:
    """Return "a, b and c"."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _bands(ages: str) -> tuple[str, ...]:
    """Return the decades of "40-69"; hospitals tell no age more closely."""
    if not ages:
        return ()
    says = "whole decades, as 40-69 or 80-"
    low, high = _range(ages, "--age", says)
    low = low or 0
    if low % 10 or low > _OLDEST or (high is not None and (high % 10 != 9 or high < low)):
        raise typer.BadParameter(f"{ages!r} is not {says}: hospitals tell ages in decades", param_hint="--age")
    return tuple(
        band for number, band in enumerate(AGE_BANDS) if 10 * number >= low and (high is None or 10 * number <= high)
    )


def _range(text: str, option: str, says: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    found = _RANGE.fullmatch(text.strip())
    if found is None or text.strip() == "-":
        raise typer.BadParameter(f"{text!r} is not like {says}", param_hint=option)
    return (int(found[1]) if found[1] else None), (int(found[2]) if found[2] else None)


def _finding(name: str, option: str) -> Finding:
    """Return a finding, however it is capitalised."""
    for finding in Finding:
        if finding.value.casefold() == name.strip().casefold():
            return finding
    known = ", ".join(finding.value for finding in Finding)
    raise typer.BadParameter(f"{name!r} is none of the findings that silos share: {known}", param_hint=option)
