"""Answers to an evaluation as silos give them, for tests of what comes after."""

from silo_app.encoder.evaluation_answer import SiloAnswer
from silo_app.encoder.settings import TrainSettings


def near(queries=20, precision=0.8):
    figures = {"precision": precision, "average_precision": 0.7, "ndcg": 0.75}
    return {"classes": {"Pneumonia": {"queries": queries, "patients": 11, **figures}}}


def figures(present=20, absent=30, value=0.9, width=0.1):
    one = {"value": value, "low": value - width / 2, "high": min(1.0, value + width / 2)}
    names = ("auc", "average_precision", "balanced_accuracy", "sensitivity", "calibration_error")
    return {
        "present": present,
        "absent": absent,
        "present_patients": min(present, 12),
        "absent_patients": min(absent, 15),
        **dict.fromkeys(names, one),
    }


def finding(present=20, absent=30, value=0.9):
    half, patients = present // 2, min(present, 12)
    return figures(present, absent, value) | {
        "present_scores": [
            {"start": 0, "stop": 60, "views": half, "patients": patients // 2},
            {"start": 60, "stop": 100, "views": present - half, "patients": patients - patients // 2},
        ],
        "absent_scores": [{"start": 0, "stop": 100, "views": absent, "patients": min(absent, 15)}],
        "reliability": [{"start": 0, "stop": 10, "views": present + absent, "present": present, "predicted": 0.4}],
    }


def content(**changes):
    """An answer as it travels."""
    return {
        "encoder": "a" * 32,
        "kind": "federated",
        "min_patients": 5,
        "held_out_patients": 40,
        "held_out_views": 50,
        "findings": {"Pneumonia": finding()},
        "retrieval": {"encoder": near(), "raw pixels": near(precision=0.5)},
        "statistics_auc": {"Pneumonia": 0.6},
        "local": {"Pneumonia": {"value": 0.05, "low": -0.01, "high": 0.1, "local_auc": 0.85}},
        "local_training": {"rounds": 8, "training": TrainSettings().model_dump(mode="json"), "differs": ["rounds"]},
        "groups": [{"by": "sex", "value": "F", "findings": {"Pneumonia": figures(8, 9)}, "retrieval": near()}],
    } | changes


def answer(**changes):
    return SiloAnswer.checked(content(**changes))
