"""Counting what the catalogue holds."""

import struct
from collections.abc import Callable
from typing import Any

from silo_app.cases import Finding, Sex, Split, ViewPosition, age_band
from silo_app.catalogue.records import CatalogueCounts, FindingCount, Origin

__all__ = ["BRIGHTNESS_RANGES", "SIZE_BANDS", "brightness_counts", "read_counts", "size_band"]

BRIGHTNESS_RANGES = 32
SIZE_BANDS = ("under 512", "512-1023", "1024-2047", "2048-3071", "3072 or more")
"""Bands of the longer side of a stored image, in pixels."""
_SIDES = (512, 1024, 2048, 3072)

Rows = Callable[[str], list[tuple[Any, ...]]]


def read_counts(rows: Rows) -> CatalogueCounts:
    """Return the counts; `rows` runs a query."""
    views = _single(rows, "SELECT count(*) FROM views")
    return CatalogueCounts(
        patients=_single(rows, "SELECT count(DISTINCT patient) FROM studies JOIN views USING (case_id)"),
        cases=_single(rows, "SELECT count(DISTINCT case_id) FROM views"),
        series=_single(rows, "SELECT count(DISTINCT series_key) FROM views"),
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
        sizes=_sizes(rows),
        brightness=_mean_brightness(rows),
        findings=_findings(rows, views),
        origins=_origins(rows),
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
    return dict(sorted(bands.items(), key=lambda band: not band[0]))  # the youngest first, the unknown last


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


def size_band(side: int | None) -> str:
    """Return the band of a stored image's longer side in pixels, "" if that is not known."""
    if side is None:
        return ""
    return SIZE_BANDS[sum(side >= limit for limit in _SIDES)]


def _sizes(rows: Rows) -> dict[str, int]:
    """Return views by the longer side of the stored image, in pixels."""
    bands = dict.fromkeys(SIZE_BANDS, 0) | {"": 0}
    for side, count in rows("SELECT max(source_rows, source_columns) AS side, count(*) FROM views GROUP BY side"):
        bands[size_band(side)] += count
    return {name: count for name, count in bands.items() if count}


def brightness_counts(content: bytes) -> tuple[int, ...]:
    """Return the counts of a `views.brightness`, zeros if it is of another length."""
    whole = len(content) == 4 * BRIGHTNESS_RANGES
    return struct.unpack(f"<{BRIGHTNESS_RANGES}I", content) if whole else (0,) * BRIGHTNESS_RANGES


def _mean_brightness(rows: Rows) -> tuple[float, ...]:
    """Return the mean over images of the share of each range; nothing if no image was measured."""
    totals, images = [0.0] * BRIGHTNESS_RANGES, 0
    for (content,) in rows("SELECT brightness FROM views WHERE brightness IS NOT NULL"):
        counts = brightness_counts(content)
        pixels = sum(counts)
        if pixels:
            images += 1
            totals = [total + count / pixels for total, count in zip(totals, counts, strict=True)]
    return tuple(total / images for total in totals) if images else ()


def _origins(rows: Rows) -> dict[Origin, int]:
    return {
        Origin(source=source, preset=preset, digest=digest, since=since): count
        for source, preset, digest, since, count in rows(
            "SELECT o.source, o.preset, o.digest, o.since, count(DISTINCT l.digest) FROM origins o "
            "JOIN labels l ON l.origin = o.id GROUP BY o.id ORDER BY o.since, o.source"
        )
    }
