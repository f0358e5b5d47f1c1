"""The page of `jobs/evaluate`: how an encoder does in every silo and in all together, beside what no training achieves."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from silo_app.encoder.evaluation_answer import local_words
from silo_app.pages.diagonal import Points, diagonal
from silo_app.pages.intervals import Mark, Row, intervals
from silo_app.pages.render import render

__all__ = ["evaluation_page"]

_GROUPS = {"sex": "sex", "age_band": "age", "device": "device"}
_CHANCE = 0.5


def evaluation_page(data: Mapping[str, Any]) -> str:
    """Return the page of what `silo evaluate --job` prints as JSON."""
    names = list(data["silos"])
    findings = list(data["pooled"]["findings"])
    rows = [_row(data, finding, name) for finding in findings for name in names if _told(data, finding, name)]
    facts = {
        "names": names,
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "left_out": [name for name in names if name not in data["pooled"]["silos"]],
        "areas": _areas(data, findings, names) if findings else None,
        "rows": rows,
        "alone": {n: local_words(told) for n in names if (told := data["silos"][n]["local_training"])},
        "own": [row for row in rows if row["own"]],
        "reliable": _reliable(data, findings, names),
        "near": [_near(name, way, one) for name in names for way, one in data["silos"][name]["retrieval"].items()],
        "groups": [row for name in names for group in data["silos"][name]["groups"] for row in _group(name, group)],
    }
    return render("evaluation.html.j2", {**data, **facts})


def _told(data: Mapping[str, Any], finding: str, name: str) -> Any:
    return data["silos"][name]["findings"].get(finding)


def _areas(data: Mapping[str, Any], findings: list[str], names: list[str]) -> Markup:
    rows = []
    for finding in findings:
        told = [(number, name, _told(data, finding, name)) for number, name in enumerate(names)]
        marks = [Mark(name, number, **one["auc"]) for number, name, one in told if one]
        together = data["pooled"]["findings"][finding]["auc"]
        marks.append(Mark("all silos", None, together["value"], together["least"], together["most"]))
        rows.append(Row(finding, marks))
    return intervals("AUC of each finding in each silo", rows, axis="AUC", chance=_CHANCE)


def _row(data: Mapping[str, Any], finding: str, name: str) -> dict[str, Any]:
    silo = data["silos"][name]
    return {
        "finding": finding,
        "silo": name,
        "floor": silo["statistics_auc"].get(finding),
        "local": silo["local"].get(finding),
        "own": silo["own"].get(finding),
        **silo["findings"][finding],
    }


def _reliable(data: Mapping[str, Any], findings: list[str], names: list[str]) -> list[dict[str, Any]]:
    """Return a diagram for every finding of which some silo tells more than one bin."""
    diagrams = []
    for finding in findings:
        lines = []
        for number, name in enumerate(names):
            told = _told(data, finding, name)
            bins = told["reliability"] if told else []
            if len(bins) > 1:
                values = [(one["predicted"], one["present"] / one["views"]) for one in bins]
                lines.append(Points(name, number, values))
        if lines:
            diagrams.append({"finding": finding, "chart": diagonal(f"Reliability: {finding}", lines)})
    return diagrams


def _near(name: str, way: str, told: Mapping[str, Any]) -> dict[str, Any]:
    classes = told["classes"].values()
    figures = ("precision", "average_precision", "ndcg")
    means = {figure: sum(one[figure] for one in classes) / len(classes) if classes else None for figure in figures}
    return {"silo": name, "way": way, "classes": len(classes), **means}


def _group(name: str, group: Mapping[str, Any]) -> list[dict[str, Any]]:
    where = {"silo": name, "by": _GROUPS[group["by"]], "value": group["value"]}
    near = _near(name, "encoder", group["retrieval"])
    rows = [{**where, "finding": finding, **one} for finding, one in group["findings"].items()]
    if near["classes"]:
        rows.append({**where, "finding": "(neighbours)", "near": near})
    return rows
