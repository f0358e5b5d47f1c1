"""What `silo evaluate --job` shows of the record of an evaluation (`jobs/evaluate`)."""

from typing import Any

from silo_app.cli.tables import WholeTable, data_screen
from silo_app.encoder.evaluation_answer import local_words

__all__ = ["show_record"]

_CLOSE: dict[str, Any] = {"copied": ("finding", "silo", "group"), "gap": 1}


def show_record(data: dict[str, Any]) -> None:
    """Print the tables of a record's content for people."""
    screen = data_screen()
    pooled = data["pooled"]
    screen.print(f"encoder {pooled['encoder'] or '-'}, {pooled['held_out_patients']} held-out patients", highlight=False)
    for name, why in data["refused"].items():
        screen.print(f"{name}: did not tell. {why}", highlight=False, markup=False)
    for name, why in data["missing"].items():
        screen.print(f"{name}: no answer ({why})", highlight=False, markup=False)
    others = [name for name in data["silos"] if name not in pooled["silos"]]
    if others:
        screen.print(f"not pooled, they use another encoder: {', '.join(others)}", highlight=False, markup=False)
    for name, told in data["silos"].items():
        if told["local_training"]:
            screen.print(
                f"{name} alone: {local_words(told['local_training'])}", highlight=False, markup=False, soft_wrap=True
            )
    for table in (_together(data), _findings(data), _neighbours(data), _groups(data)):
        if table.row_count:
            screen.print(table, markup=False)


def _together(data: dict[str, Any]) -> WholeTable:
    area = "AUC (least to most)", "AUC inside silos (95 %)"
    table = WholeTable(
        "finding", "silos", "present", "absent", *area, f"sens. at {data['specificity']}", "ECE at most", **_CLOSE
    )
    table.title = "all silos together, from counts of scores"
    for name, one in data["pooled"]["findings"].items():
        counts = (str(one[key]) for key in ("silos", "present", "absent"))
        areas = _bounded(one["auc"]), _interval(one["auc_inside_silos"])
        table.add_row(name, *counts, *areas, _bounded(one["sensitivity"]), _number(one["calibration_error_at_most"]))
    return table


def _findings(data: dict[str, Any]) -> WholeTable:
    figures = "AUC (95 %)", "balanced accuracy", f"sens. at {data['specificity']}", "ECE"
    table = WholeTable("silo", "finding", "present", "absent", *figures, "floor AUC", "gain over local", **_CLOSE)
    table.title = "findings on held-out patients, each silo (floor: image statistics alone)"
    for silo, told in data["silos"].items():
        for name, one in told["findings"].items():
            numbers = (_number(one[key]["value"]) for key in ("balanced_accuracy", "sensitivity", "calibration_error"))
            gap = told["local"].get(name)
            table.add_row(
                silo,
                name,
                str(one["present"]),
                str(one["absent"]),
                _interval(one["auc"]),
                *numbers,
                _number(told["statistics_auc"].get(name)),
                _interval(gap, sign="+") if gap else "",
            )
    return table


def _neighbours(data: dict[str, Any]) -> WholeTable:
    table = WholeTable("silo", "by", f"balanced precision@{data['k']}", "balanced mAP", f"balanced nDCG@{data['k']}")
    table.title = "neighbours inside each silo"
    for way, one in data["pooled"]["retrieval"].items():
        table.add_row("all", way, *(_number(one[key]) for key in ("precision", "average_precision", "ndcg")))
    for silo, told in data["silos"].items():
        for way, one in told["retrieval"].items():
            classes = one["classes"].values()
            if classes:
                means = (sum(c[key] for c in classes) / len(classes) for key in ("precision", "average_precision", "ndcg"))
                table.add_row(silo, way, *map(_number, means))
    return table


def _groups(data: dict[str, Any]) -> WholeTable:
    table = WholeTable("silo", "group", "finding", "patients with, without", "AUC (95 %)", "ECE", **_CLOSE)
    table.title = "groups of patients"
    for silo, told in data["silos"].items():
        for group in told["groups"]:
            for name, one in group["findings"].items():
                patients = f"{one['present_patients']}, {one['absent_patients']}"
                error = _number(one["calibration_error"]["value"])
                table.add_row(silo, f"{group['by']} {group['value']}", name, patients, _interval(one["auc"]), error)
    return table


def _bounded(one: dict[str, float]) -> str:
    return f"{one['value']:.3f} ({one['least']:.3f} to {one['most']:.3f})"


def _interval(one: dict[str, float | None], *, sign: str = "") -> str:
    value = _number(one["value"], sign)
    return value if one["low"] is None else f"{value} ({_number(one['low'], sign)} to {_number(one['high'], sign)})"


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"
