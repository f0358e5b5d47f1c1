"""One search from what somebody wants to what is found: what `silo search` and `silo desk` both do."""

import contextlib
from dataclasses import dataclass
from typing import Any

from silo_app.cases import CaseId
from silo_app.config import SiloHome
from silo_app.policy.filters import Filters
from silo_app.search.ask import Asker, require_wide, search_query
from silo_app.search.examples import OWN, Example, Examples, Means
from silo_app.search.messages import SearchResult
from silo_app.search.preview import preview
from silo_app.search.query import PLAIN, Query, Refinement, prepared

__all__ = ["Found", "Wanted", "as_data", "find"]

_ALL = Filters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants found, who that is, and why."""

    example: Example
    refinement: Refinement = PLAIN
    without_patient: bool = False
    """Whether the silo's own cases of the same patient are left out: of a file, whom its header names."""
    k: int = 10
    purpose: str = "care"
    user: str = ""
    budget_ms: int | None = None
    """How long silos may take; None for as long as is usual."""
    private: bool = False
    filters: Filters = _ALL
    preview: bool = False
    """Whether the image is wanted back as the encoder sees it; of a case that the silo holds, the audit log has that."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is found."""

    result: SearchResult
    preview: bytes = b""
    """The image asked with as a gray PNG (`search.preview`); empty if it was not wanted, there are several, or it is not
    in the cache."""
    query: Query | None = None
    """What was asked; None if another process asked it."""
    itself: frozenset[CaseId] = frozenset()
    """Own cases whose image was given as a file, if they may be hits that no similarity of 1 tells from neighbors: of a
    refined query, or of a private one, whose scores have noise."""


def find(home: SiloHome, wanted: Wanted, *, asker: Asker | None = None, means: Means = OWN) -> Found:
    """Read, embed, refine and ask all silos, with an asker and means that are kept, or with new ones.

    Raises what `search.query.prepared` and `search_query` raise.
    """
    require_wide(private=wanted.private, filters=wanted.filters)
    examples = Examples(home, (wanted.example, *wanted.refinement.examples), means)
    query = prepared(home, wanted.example, wanted.refinement, without_patient=wanted.without_patient, among=examples)
    image = examples.image_if_cached(wanted.example) if wanted.preview else None
    itself = examples.cases_of_files if wanted.private or wanted.refinement else frozenset()
    drawn = b"" if image is None else preview(image, examples.encoder.spec.input_size)
    with contextlib.nullcontext(asker) if asker else contextlib.closing(Asker.of(home)) as asking:
        result = search_query(
            home,
            query,
            k=wanted.k,
            purpose=wanted.purpose,
            user=wanted.user,
            budget_ms=wanted.budget_ms,
            private=wanted.private,
            filters=wanted.filters,
            asker=asking,
        )
        case = examples.case(wanted.example) if drawn else None
        if case is not None:
            asking.audit.append("shown", {"asked_query": result.query_id, "user": wanted.user, "cases": [case]})
    return Found(result if wanted.refinement.region is None else _without_beyond(result), drawn, query, itself)


def _without_beyond(result: SearchResult) -> SearchResult:
    """Return a result without what hospitals estimate from whole images: what is like a region is less alike."""
    listed = {
        part: tuple(hit.model_copy(update={"beyond": None}) for hit in hits)
        for part, hits in (("hits", result.hits), ("elsewhere", result.elsewhere))
    }
    return result.model_copy(update=listed)


def as_data(result: SearchResult) -> dict[str, Any]:
    """Return a result as plain values for programs and pages, without pictures."""
    pictures = {"__all__": {"thumbnail"}}
    return result.model_dump(
        mode="json", exclude={"kind": True, "version": True, "sealed": True, "hits": pictures, "elsewhere": pictures}
    )
