"""What a query may be narrowed to: words of the card only, so that nothing can be asked for that may not be shown."""

import functools
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from silo_app.cases import Finding, Sex, View, ViewPosition, age_band

__all__ = ["AGE_BANDS", "CardField", "Filters"]

CardField = Literal["position", "sex", "age_band", "study_year", "findings"]
AGE_BANDS = (*(f"{low}-{low + 9}" for low in range(0, 90, 10)), "90+")

# Members of an enumeration arrive as their plain text, as in a card.
_Word = Field(strict=False)
_Year = Annotated[int, Field(ge=1900, le=2200)]
_Few = Field(max_length=32)


def _said_once(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _is_band(text: str) -> str:
    if text not in AGE_BANDS:
        raise ValueError(f"ages are told in decades: {', '.join(AGE_BANDS)}")
    return text


_Once = AfterValidator(_said_once)
"""A word that is said again makes no other question: a count would draw other noise for it."""


class Filters(BaseModel):
    """Every part that is given must hold for a case's card; what a silo does not know of a case does not hold."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    positions: Annotated[tuple[Annotated[ViewPosition, _Word], ...], _Few, _Once] = ()
    """One of these."""
    sexes: Annotated[tuple[Annotated[Sex, _Word], ...], _Few, _Once] = ()
    """One of these."""
    age_bands: Annotated[tuple[Annotated[str, AfterValidator(_is_band)], ...], _Few, _Once] = ()
    """One of these (`cases.age_band`)."""
    year_from: _Year | None = None
    year_to: _Year | None = None
    present: Annotated[tuple[Annotated[Finding, _Word], ...], _Few, _Once] = ()
    """All of these are present."""
    absent: Annotated[tuple[Annotated[Finding, _Word], ...], _Few, _Once] = ()
    """All of these are known to be absent."""

    @model_validator(mode="after")
    def _can_hold(self) -> Self:
        if set(self.present) & set(self.absent):
            raise ValueError("a finding cannot be present and absent")
        if self.year_from is not None and self.year_to is not None and self.year_from > self.year_to:
            raise ValueError("the years end before they begin")
        return self

    def __bool__(self) -> bool:
        """Return whether anything is asked for."""
        return bool(self.fields)

    @functools.cached_property
    def fields(self) -> frozenset[CardField]:
        """The fields of a card that are asked about."""
        asked: dict[CardField, bool] = {
            "position": bool(self.positions),
            "sex": bool(self.sexes),
            "age_band": bool(self.age_bands),
            "study_year": self.year_from is not None or self.year_to is not None,
            "findings": bool(self.present or self.absent),
        }
        return frozenset(name for name, is_asked in asked.items() if is_asked)

    def holds(self, view: View) -> bool:
        """Return whether all that is asked for is known of this view, and so."""
        return (
            (not self.positions or view.position in self.positions)
            and (not self.sexes or view.sex in self.sexes)
            and (not self.age_bands or age_band(view.age) in self.age_bands)
            and self._in_years(view.study_year)
            and all(view.findings.get(finding) is True for finding in self.present)
            and all(view.findings.get(finding) is False for finding in self.absent)
        )

    def _in_years(self, year: int | None) -> bool:
        if self.year_from is None and self.year_to is None:
            return True
        return year is not None and (self.year_from or year) <= year <= (self.year_to or year)
