"""The page of a survey: every silo beside the others."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from silo_app.pages.drawing import Series, lines
from silo_app.pages.render import render

__all__ = ["survey_page"]


def survey_page(data: Mapping[str, Any]) -> str:
    """Return the page of what `silo survey show` prints as JSON."""
    told = [table for table in data["tables"] if any(any(cells) for cells in table["counts"].values())]
    answers = [_finding(table) for table in told if table["name"].startswith("finding:")]
    findings = [answer for answer in answers if any(one["known"] for one in answer["silos"].values())]
    silent = [answer["title"] for answer in answers if answer not in findings]
    others = [{**table, "chart": _chart(table)} for table in told if not table["name"].startswith(("finding:", "patients"))]
    patients: dict[str, list[int]] = next((table["counts"] for table in told if table["name"] == "patients"), {})
    pairs = sorted({tuple(pair["silos"]) for table in told for pair in table["distances"]})
    facts = {"names": list(data["silos"]), "patients": {name: cells[0] for name, cells in patients.items()}}
    unlike = [_unlike(table, pairs) for table in told if table["distances"]]
    facts |= {
        "findings": findings,
        "silent": silent,
        "others": others,
        "pairs": pairs,
        "unlike": sorted(unlike, key=_most, reverse=True),
    }
    return render("survey.html.j2", {**data, **facts})


def _chart(table: Mapping[str, Any]) -> Markup | None:
    """Draw an ordered table as lines of shares; the others are bars."""
    if not table["ordered"]:
        return None
    series = [
        Series(name, [count / sum(cells) if sum(cells) else None for count in cells])
        for name, cells in table["counts"].items()
    ]
    labels = [_short(label) for label in table["labels"]]
    return lines(table["title"], labels, series, axis=table["title"].lower())


def _short(label: str) -> str:
    """Return a label that fits below its range: where it begins."""
    for word, sign in ((" or more", "+"), (" or later", "+"), ("under ", "<"), ("before ", "<")):
        label = label.removesuffix(word) + sign if label.endswith(word) else label
        label = sign + label.removeprefix(word) if label.startswith(word) else label
    return label.partition("-")[0]


def _finding(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return by silo the share of patients with a finding among those of whom it is known, and of how many it is known."""
    places = {label: number for number, label in enumerate(table["labels"])}
    shares = {}
    for name, cells in table["counts"].items():
        present, absent = cells[places["present"]], cells[places["absent"]]
        shares[name] = {"present": present, "known": present + absent, "unknown": cells[places["unknown"]]}
    return {"title": table["title"], "silos": shares}


def _unlike(table: Mapping[str, Any], pairs: list[tuple[str, ...]]) -> dict[str, Any]:
    found = {tuple(pair["silos"]): pair for pair in table["distances"]}
    return {"title": table["title"], "cells": [found.get(pair) for pair in pairs]}


def _most(row: Mapping[str, Any]) -> float:
    return max((cell["distance"] for cell in row["cells"] if cell), default=0.0)
