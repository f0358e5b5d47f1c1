"""The plan of `jobs/train` as it stands, so that what is measured is what a researcher submits."""

import json
from pathlib import Path
from typing import Any

from silo_app.encoder.plan import TrainingPlan

__all__ = ["PLAN_FILE", "default_plan"]

PLAN_FILE = Path(__file__).parents[1] / "jobs" / "train" / "app" / "config" / "config_fed_server.json"


def default_plan(
    *, seed: int, epochs: float, rounds: int | None = None, squares: str | None = None, **changes: Any
) -> TrainingPlan:
    """Return the default job's plan with `epochs` passes over the images in all its rounds together, or in `rounds`.

    `squares` is the training setting, `changes` are settings of the plan in its place; those that are None are left out.
    """
    (workflow,) = json.loads(PLAN_FILE.read_text(encoding="utf-8"))["workflows"]
    plan = dict(workflow["args"]["plan"])
    rounds = rounds or TrainingPlan.checked(plan).rounds
    training = {**plan.get("training", {}), "epochs": epochs / rounds} | ({"squares": squares} if squares else {})
    plan |= {name: value for name, value in changes.items() if value is not None}
    return TrainingPlan.checked({**plan, "rounds": rounds, "seed": seed, "training": training})
