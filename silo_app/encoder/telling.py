"""What a silo tells of its training: to its trainer, its own journal, the model card, and a job that resumes it."""

from collections.abc import Mapping, Sequence
from typing import Any

from silo_app.encoder.plan import TrainingPlan

__all__ = ["card_of", "opening_of", "own_of", "settings_of"]


def settings_of(plan: TrainingPlan) -> dict[str, Any]:
    """Return what must be the same in a job that resumes another."""
    return plan.model_dump(mode="json", exclude={"resume", "admit"})


def opening_of(plan: TrainingPlan, trained: int, jobs: Sequence[str]) -> dict[str, Any]:
    """Return what the trainer is told to open (`Worker.open`) when `trained` sums of the `jobs` are in the weights."""
    parameters: dict[str, Any] = {
        "spec": plan.encoder.model_dump(mode="json"),
        "seed": plan.seed,
        "start": plan.start,
        "personal": plan.personal,
    }
    if plan.privacy is not None:
        parameters["private"] = {
            "privacy": plan.privacy.model_dump(mode="json"),
            "settings": plan.training.model_dump(mode="json"),
            "rounds": plan.rounds,
            "left": max(plan.rounds - trained, 0),
            "jobs": list(jobs),
        }
    return parameters


def own_of(trained: Mapping[str, Any], weighed: float, *, encrypt_s: float, open_s: float) -> dict[str, Any]:
    """Return what a silo notes of its own round; its update counted for the share `weighed` of the silo's weight."""
    return {
        "train_seconds": trained["seconds"],
        "encrypt_seconds": round(encrypt_s, 3),
        "open_seconds": round(open_s, 3),
        "steps": trained["steps"],
        "steps_planned": trained["planned"],
        "samples": trained["samples"],
        "weighed": round(weighed, 3),
    }


def card_of(plan: TrainingPlan, *, job: str, trained: int, silos: tuple[str, ...], threshold: int) -> dict[str, Any]:
    """Return the model card of an encoder after `trained` sums."""
    return {
        "job": job,
        "kind": "federated",
        "round": trained,
        "rounds": plan.rounds,
        "select": plan.select,
        "silos": list(silos),
        "encryption": plan.encryption,
        "field_bits": plan.field_bits,
        "min_silos": plan.min_silos,
        "threshold": threshold if plan.encryption == "bfv" else None,
        "seed": plan.seed,
        "start": plan.start,
        "training": plan.training.model_dump(mode="json"),
        "averaging": plan.averaging.model_dump(mode="json"),
        "weigh": plan.weigh,
        "fairness": plan.fairness,
        "personal": plan.personal,
        "scaffold": plan.scaffold,
    }
