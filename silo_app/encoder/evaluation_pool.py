"""What several silos' answers say together, from aggregates alone; no torch.

Scores do not leave a silo, so figures over all views come from summed counts of scores (`score_histogram`), with the least
and most that they can be. What adds up exactly (inside-silo AUC, neighbours inside silos) is exact.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from silo_app.encoder.evaluation_answer import ClassFigures, Figure, FindingTold, RetrievalTold, SiloAnswer, Way
from silo_app.encoder.score_histogram import Side, pooled_auc, pooled_sensitivity

__all__ = ["encoder_of", "pooled"]

_DECIMALS = 4
_EDGES = 2 * 1.959964
"""How many standard errors a 95 % interval is wide."""


def encoder_of(answers: Mapping[str, SiloAnswer]) -> str | None:
    """Return the encoder that most silos evaluated (the first in order among equals); only its answers are pooled."""
    counts = Counter(one.encoder for one in answers.values())
    return min(counts, key=lambda each: (-counts[each], each), default=None)


def pooled(answers: Mapping[str, SiloAnswer]) -> dict[str, Any]:
    """Return the figures over all silos that evaluated `encoder_of`, as they are written into the record."""
    encoder = encoder_of(answers)
    silos = {name: one for name, one in sorted(answers.items()) if one.encoder == encoder}
    told = [one.findings for one in silos.values()]
    findings = sorted({finding for one in told for finding in one})
    ways: list[Way] = ["encoder", "local-only encoder", "untrained encoder", "raw pixels"]
    near = {way: [one.retrieval[way] for one in silos.values() if way in one.retrieval] for way in ways}
    return {
        "encoder": encoder,
        "silos": list(silos),
        "held_out_patients": sum(one.held_out_patients for one in silos.values()),
        "findings": {str(finding): _finding([one[finding] for one in told if finding in one]) for finding in findings},
        "retrieval": {way: _retrieval(told_near) for way, told_near in near.items() if told_near},
    }


def _finding(parts: Sequence[FindingTold]) -> dict[str, Any]:
    present, absent = [_side(one, "present_scores") for one in parts], [_side(one, "absent_scores") for one in parts]
    area, sensitivity = (_rounded(asdict(measure(present, absent))) for measure in (pooled_auc, pooled_sensitivity))
    pairs = [float(one.present * one.absent) for one in parts]
    views = [float(one.present + one.absent) for one in parts]
    error = sum(weight * one.calibration_error.value for weight, one in zip(views, parts, strict=True)) / sum(views)
    return {
        "silos": len(parts),
        "present": sum(one.present for one in parts),
        "absent": sum(one.absent for one in parts),
        "auc": area,
        "auc_inside_silos": _rounded(_mean([one.auc for one in parts], pairs)),
        "sensitivity": sensitivity,
        "calibration_error_at_most": round(error, _DECIMALS),
    }


def _side(told: FindingTold, name: str) -> Side:
    return [(one.start, one.stop, one.views) for one in getattr(told, name)]


def _mean(figures: Sequence[Figure], weights: Sequence[float]) -> dict[str, float | None]:
    """Return the weighted mean of independent figures; its interval is normal, of their intervals' widths."""
    shares = [weight / sum(weights) for weight in weights]
    value = sum(share * one.value for share, one in zip(shares, figures, strict=True))
    if any(one.low is None or one.high is None for one in figures):
        return {"value": value, "low": None, "high": None}
    errors = [share * ((one.high or 0.0) - (one.low or 0.0)) / _EDGES for share, one in zip(shares, figures, strict=True)]
    half = _EDGES / 2 * sum(error**2 for error in errors) ** 0.5
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _retrieval(parts: Sequence[RetrievalTold]) -> dict[str, Any]:
    """Return balanced figures: means over classes of means over all silos' queries."""
    names = sorted({name for one in parts for name in one.classes})
    classes = {name: [one.classes[name] for one in parts if name in one.classes] for name in names}
    means = {
        figure: {str(name): _over_queries(told, figure) for name, told in classes.items()}
        for figure in ("precision", "average_precision", "ndcg")
    }
    return {
        "queries": {str(name): sum(one.queries for one in told) for name, told in classes.items()},
        **{figure: _balanced(by_class) for figure, by_class in means.items()},
        "precision_by_class": means["precision"],
    }


def _over_queries(told: Sequence[ClassFigures], figure: str) -> float:
    total = sum(one.queries * float(getattr(one, figure)) for one in told)
    return round(total / sum(one.queries for one in told), _DECIMALS)


def _balanced(by_class: Mapping[str, float]) -> float | None:
    return round(sum(by_class.values()) / len(by_class), _DECIMALS) if by_class else None


def _rounded(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if number is None else round(number, _DECIMALS) for name, number in numbers.items()}
