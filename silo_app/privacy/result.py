"""The record of a survey, read with care: it came from a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silo_app.downloaded import read_downloaded
from silo_app.privacy.questions import TABLES, Table

__all__ = ["RECORD_NAME", "Answer", "SurveyResult", "read_result"]

RECORD_NAME = "survey.json"
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one silo told, and on which terms."""

    counts: Mapping[str, Sequence[int]]
    """By table; 0 where there are fewer than `min_count`; a table that is not told is missing."""
    min_count: int
    epsilon: float | None
    spent: float
    day: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyResult:
    """A survey, with what is missing."""

    silos: Mapping[str, Answer]
    refused: Mapping[str, str]
    """Public sentences by silo."""
    missing: Sequence[str]

    def told(self, table: Table) -> dict[str, list[int]]:
        """Return the counts of the silos that told a table, in the order of their names."""
        return {name: list(one.counts[table.name]) for name, one in sorted(self.silos.items()) if table.name in one.counts}


def read_result(path: Path) -> SurveyResult:
    """Read a record, or find the one in a downloaded job's folder. Raises as `read_downloaded` does."""
    return read_downloaded(path, RECORD_NAME, what="a survey", largest=_MAX_BYTES, read=_result)


def _result(content: Any) -> SurveyResult:
    if content["schema_version"] != 1:
        raise ValueError("it is of another version")
    return SurveyResult(
        silos={str(name): _answer(one) for name, one in content["silos"].items()},
        refused={str(name): str(why.get("public") or why.get("code")) for name, why in content["refused"].items()},
        missing=[str(name) for name in content["missing"]],
    )


def _answer(content: Mapping[str, Any]) -> Answer:
    terms = content["terms"]
    known = {table.name: len(table.labels) for table in TABLES}
    counts = {str(name): [int(count) for count in cells] for name, cells in content["counts"].items() if name in known}
    if any(len(cells) != known[name] or min(cells) < 0 for name, cells in counts.items()):
        raise ValueError("a table has other cells than ours")
    return Answer(
        counts=counts,
        min_count=int(terms["min_count"]),
        epsilon=None if terms["epsilon"] is None else float(terms["epsilon"]),
        spent=float(terms["spent"]),
        day=str(terms["day"]),
    )
