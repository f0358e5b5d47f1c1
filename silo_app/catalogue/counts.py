"""Counting what the catalogue holds."""

from collections.abc import Callable
from typing import Any

from silo_app.cases import Finding, Sex, Split, ViewPosition, age_band
from silo_app.catalogue.records import CatalogueCounts, FindingCount

__all__ = ["read_counts"]

Rows = Callable[[str], list[tuple[Any, ...]]]


def read_counts(rows: Rows) -> CatalogueCounts:
    """Return the counts; `rows` runs a query."""
    views = _single(rows, "SELECT count(*) FROM views")
    return CatalogueCounts(
        patients=_single(rows, "SELECT count(DISTINCT patient) FROM studies JOIN views USING (case_id)"),
        cases=_single(rows, "SELECT count(DISTINCT case_id) FROM views"),
        views=views,
        splits={
            Split(name): count
            for name, count in rows(
                "SELECT split, count(*) FROM views JOIN studies s USING (case_id) JOIN patients p ON p.key = s.patient "
                "GROUP BY split ORDER BY split"
            )
        },
        positions={ViewPosition(name): count for name, count in _grouped(rows, "position")},
        sexes={Sex(name): count for name, count in _grouped(rows, "sex")},
        age_bands=_age_bands(rows),
        study_years=dict(_grouped(rows, "study_year")),
        devices=dict(_grouped(rows, "device")),
        findings=_findings(rows, views),
        unlabelled=views - _single(rows, "SELECT count(DISTINCT digest) FROM labels"),
        refused=dict(
            rows("SELECT reason, count(*) FROM files WHERE digest IS NULL GROUP BY reason ORDER BY count(*) DESC, reason")
        ),
    )


def _single(rows: Rows, query: str) -> int:
    return int(rows(query)[0][0])


def _grouped(rows: Rows, column: str) -> list[tuple[Any, int]]:
    return [
        (value, count)
        for value, count in rows(f"SELECT {column}, count(*) FROM views GROUP BY {column} ORDER BY {column}")  # noqa: S608
    ]


def _age_bands(rows: Rows) -> dict[str, int]:
    bands: dict[str, int] = {}
    for age, count in _grouped(rows, "age"):
        bands[age_band(age)] = bands.get(age_band(age), 0) + count
    return bands


def _findings(rows: Rows, views: int) -> dict[Finding, FindingCount]:
    known = {
        name: (present, absent)
        for name, present, absent in rows("SELECT finding, sum(present), sum(1 - present) FROM labels GROUP BY finding")
    }
    return {
        finding: FindingCount(
            present=known[finding.value][0],
            absent=known[finding.value][1],
            unknown=views - sum(known[finding.value]),
        )
        for finding in Finding
        if finding.value in known
    }
