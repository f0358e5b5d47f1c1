"""The plan of `jobs/train` as it stands, so that what is measured is what a researcher submits."""

import json
from pathlib import Path

from silo_app.encoder.plan import TrainingPlan

__all__ = ["PLAN_FILE", "default_plan"]

PLAN_FILE = Path(__file__).parents[1] / "jobs" / "train" / "app" / "config" / "config_fed_server.json"


def default_plan(*, seed: int, epochs: float, rounds: int | None = None) -> TrainingPlan:
    """Return the default job's plan with `epochs` passes over the images in all its rounds together, or in `rounds`."""
    (workflow,) = json.loads(PLAN_FILE.read_text(encoding="utf-8"))["workflows"]
    plan = dict(workflow["args"]["plan"])
    rounds = rounds or TrainingPlan.checked(plan).rounds
    training = {**plan.get("training", {}), "epochs": epochs / rounds}
    return TrainingPlan.checked({**plan, "rounds": rounds, "seed": seed, "training": training})
