"""The messages of a count: an embedding and how alike, and how many patients have such cases; with noise, few not told."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from silo_app.cases import Embedding, Finding
from silo_app.policy.filters import Filters
from silo_app.search.messages import (
    Count,
    Message,
    QueryId,
    Question,
    SiloName,
    UnitVector,
    Version,
    embedding_of,
)

__all__ = ["CountAnswer", "CountRequest", "Told", "told_words"]

MAX_MIN_COUNT = 1_000_000

Told = Annotated[int, Field(ge=1, le=10**12)] | None
"""A number with noise; None is fewer than the silo tells."""


class CountRequest(Question):
    """To every silo, signed: how many patients have a case that is at least so much alike."""

    max_bytes: ClassVar[int] = 64 * 1024

    kind: Literal["count-request"] = "count-request"
    encoder_version: Version
    vector: UnitVector
    alike: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """More alike than so many percent of random pairs of the silo's different patients; in tenths."""
    similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] = -1.0
    """And at least so similar; in hundredths."""
    filters: Filters = Filters()
    """Whom to count; nothing is all."""
    by_finding: bool = False
    """Whether those with each finding are counted too, where the silo releases findings."""

    @field_validator("alike")
    @classmethod
    def _in_tenths(cls, alike: float) -> float:
        return _coarse(alike, 1)

    @field_validator("similarity")
    @classmethod
    def _in_hundredths(cls, similarity: float) -> float:
        return _coarse(similarity, 2)

    @property
    def embedding(self) -> Embedding:
        """The vector as float32 (D,)."""
        return embedding_of(self.vector)


class CountAnswer(Message):
    """What one silo tells: patients, not cases."""

    kind: Literal["count"] = "count"
    query_id: QueryId
    silo: SiloName
    encoder_version: Version
    generation: Annotated[str, Field(max_length=64)]
    indexed: Count
    """Cases in the index that was asked."""
    min_count: Annotated[int, Field(ge=1, le=MAX_MIN_COUNT)]
    """A smaller number is not told."""
    epsilon: Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False)]
    """The noise of each number (`CountSettings.epsilon`)."""
    patients: Told
    findings: dict[Annotated[Finding, Field(strict=False)], Told] = Field(default_factory=dict)
    """Of those, patients with each finding; empty where that was not asked, or the silo does not release it."""
    took_us: Count = 0

    @model_validator(mode="after")
    def _tells_no_fewer_than_it_says(self) -> Self:
        for number in (self.patients, *self.findings.values()):
            if number is not None and not self.min_count <= number <= self.indexed:
                raise ValueError("a number that is smaller than the silo tells, or greater than all of its cases")
        return self


def told_words(answer: CountAnswer) -> list[str]:
    """Return what a silo told, in words, for the audit logs of both sides."""
    numbers: dict[str, int | None] = {"patients": answer.patients}
    numbers |= {finding.value: number for finding, number in answer.findings.items()}
    return [f"{name}: {f'under {answer.min_count}' if told is None else told}" for name, told in numbers.items()]


def _coarse(value: float, digits: int) -> float:
    """Return a value of so many digits; more would ask one question many times over, each with another noise."""
    if abs(value - round(value, digits)) > 1e-9:
        raise ValueError(f"more than {digits} decimals")
    return round(value, digits)
