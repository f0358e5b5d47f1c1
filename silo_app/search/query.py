"""From what a clinician names to what is asked: one unit vector, and the own cases that are no answer to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from silo_app.cases import CaseId, Embedding, EncoderVersion
from silo_app.config import SiloHome
from silo_app.encoder.region import Region
from silo_app.search.examples import Example, Examples
from silo_app.search.rocchio import USUAL, Weights, refined

__all__ = ["PLAIN", "Query", "Refinement", "prepared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """How a query is moved away from its example: toward others, away from others; or which part of its image counts."""

    more: Sequence[Example] = ()
    less: Sequence[Example] = ()
    weights: Weights = USUAL
    region: Region | None = None

    @property
    def examples(self) -> tuple[Example, ...]:
        """All of them."""
        return (*self.more, *self.less)

    def __bool__(self) -> bool:
        """Return whether anything is refined."""
        return bool(self.more or self.less or self.region)


PLAIN = Refinement()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked, ready to be sent."""

    vector: Embedding
    """A unit vector, float32 (D,)."""
    encoder_version: EncoderVersion
    exclude: frozenset[CaseId] = frozenset()
    """Cases of the own silo that are left out: told to nobody."""


def prepared(
    home: SiloHome,
    example: Example,
    refinement: Refinement = PLAIN,
    *,
    without_patient: bool = False,
    among: Examples | None = None,
) -> Query:
    """Embed and refine; leave out the own cases that were named by case or UID, and those of the example's patient.

    `among` is where all examples were found already. Raises what `Examples` and `refined` raise.
    """
    more, less, region = tuple(refinement.more), tuple(refinement.less), refinement.region
    examples = among or Examples(home, (example, *more, *less))
    whole, *moving = examples.vectors((example, *more, *less))
    start = whole if region is None else examples.region_vector(example, region)
    vector = refined(start, moving[: len(more)], moving[len(more) :], refinement.weights)
    named = {case for one in (example, *more, *less) if (case := examples.case(one)) is not None}
    patients = examples.patients_cases(example) if without_patient else ()
    return Query(vector=vector, encoder_version=examples.version, exclude=frozenset(named.union(patients)))
