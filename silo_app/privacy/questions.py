"""What a survey asks: fixed tables of patients, the same for every silo and every job.

The ranges are part of the program, so that no job can choose them around one patient. Every patient is in exactly one
cell of each table, by one image, so that a patient more or less changes one count by one: the sensitivity of the noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from silo_app.cases import Finding, Sex, View, ViewPosition, age_band
from silo_app.catalogue import Catalogue
from silo_app.catalogue.counts import BRIGHTNESS_RANGES, SIZE_BANDS, size_band

__all__ = ["TABLES", "Table", "exact_counts"]

RANGES = 16
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One question."""

    name: str
    title: str
    labels: tuple[str, ...]
    ordered: bool = False
    """Whether the cells follow each other on a scale."""
    parts: int = 1
    """Into how many parts one patient is divided over the cells."""


def _ranges(number: int) -> tuple[str, ...]:
    return tuple(f"{start / number:.2f}-{(start + 1) / number:.2f}" for start in range(number))


_AGES = (*(f"{low}-{low + 9}" for low in range(0, 90, 10)), "90+", UNKNOWN)
_IMAGES = ("1", "2", "3-5", "6-10", "11 or more")
_YEARS = ("before 2000", *(f"{low}-{low + 4}" for low in range(2000, 2030, 5)), "2030 or later", UNKNOWN)

TABLES = (
    Table(name="patients", title="Patients with usable images", labels=("patients",)),
    Table(name="images", title="Images of a patient", labels=_IMAGES, ordered=True),
    Table(name="age", title="Age", labels=_AGES, ordered=True),
    Table(name="sex", title="Sex", labels=tuple(sex.value for sex in Sex)),
    Table(name="view", title="View", labels=tuple(position.value for position in ViewPosition)),
    Table(name="year", title="Year of study", labels=_YEARS, ordered=True),
    Table(name="size", title="Longer side in pixels", labels=(*SIZE_BANDS, UNKNOWN), ordered=True),
    Table(name="mean-brightness", title="Mean brightness of an image", labels=(*_ranges(RANGES), UNKNOWN), ordered=True),
    Table(name="brightness", title="Brightness over the area", labels=_ranges(RANGES), ordered=True, parts=100),
    *(Table(name=f"finding:{finding}", title=finding.value, labels=("absent", "present", UNKNOWN)) for finding in Finding),
)
"""Every question, in the order of its answers."""


def exact_counts(catalogue: Catalogue) -> dict[str, list[int]]:
    """Return the true counts by table; for the silo's own eyes until noise and minimum counts are upon them."""
    measures = catalogue.measures()
    counts = {table.name: [0] * len(table.labels) for table in TABLES}
    places = {table.name: {label: number for number, label in enumerate(table.labels)} for table in TABLES}
    for views in _by_patient(catalogue.views()):
        view = min(views, key=lambda each: each.digest)
        side, brightness = measures[view.digest]
        for name, label in _answers(view, len(views), side, brightness).items():
            counts[name][places[name][label]] += 1
        counts["brightness"] = [a + b for a, b in zip(counts["brightness"], _parts(brightness), strict=True)]
    return counts


def _by_patient(views: Sequence[View]) -> list[list[View]]:
    patients: dict[str, list[View]] = {}
    for view in views:
        patients.setdefault(view.patient, []).append(view)
    return list(patients.values())


def _answers(view: View, images: int, side: int | None, brightness: Sequence[int]) -> Mapping[str, str]:
    """Return the cell of a patient in every table but the one of brightness."""
    findings = {
        f"finding:{finding}": {True: "present", False: "absent", None: UNKNOWN}[view.findings.get(finding)]
        for finding in Finding
    }
    return {
        "patients": "patients",
        "images": _IMAGES[sum(images >= limit for limit in (2, 3, 6, 11))],
        "age": age_band(view.age) or UNKNOWN,
        "sex": view.sex.value,
        "view": view.position.value,
        "year": _year(view.study_year),
        "size": size_band(side) or UNKNOWN,
        "mean-brightness": _mean(brightness),
        **findings,
    }


def _year(year: int | None) -> str:
    if year is None:
        return UNKNOWN
    return _YEARS[0] if year < 2000 else _YEARS[min(1 + (year - 2000) // 5, len(_YEARS) - 2)]


def _mean(brightness: Sequence[int]) -> str:
    pixels = sum(brightness)
    if not pixels:
        return UNKNOWN
    mean = sum((place + 0.5) * count for place, count in enumerate(brightness)) / pixels / BRIGHTNESS_RANGES
    return _ranges(RANGES)[min(int(mean * RANGES), RANGES - 1)]


def _parts(brightness: Sequence[int]) -> list[int]:
    """Divide one image into 100 parts over the ranges, whole numbers; nothing if it was not measured."""
    pixels = sum(brightness)
    if not pixels:
        return [0] * RANGES
    width = BRIGHTNESS_RANGES // RANGES
    shares = [100 * sum(brightness[start : start + width]) / pixels for start in range(0, BRIGHTNESS_RANGES, width)]
    whole = [int(share) for share in shares]
    fractions = sorted(range(RANGES), key=lambda place: (whole[place] - shares[place], place))
    for place in fractions[: 100 - sum(whole)]:
        whole[place] += 1
    return whole
