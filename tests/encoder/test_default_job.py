"""Who trains without a job trains with the settings of ours."""

import json
from pathlib import Path

import pytest

from silo_app.encoder.default_job import default_plan
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import ConfigInvalid

FILE = Path(__file__).parents[2] / "jobs" / "train" / "app" / "config" / "config_fed_server.json"


def test_it_is_the_plan_of_the_job_in_all_settings():
    (workflow,) = json.loads(FILE.read_text())["workflows"]
    assert default_plan({}) == TrainingPlan.checked(workflow["args"]["plan"])


def test_settings_stand_in_the_place_of_the_jobs_and_leave_the_others():
    job, plan = default_plan({}), default_plan({"rounds": 3, "training.epochs": 2.0})
    assert (plan.rounds, plan.training.epochs) == (3, 2.0)
    assert plan.model_copy(update={"rounds": job.rounds, "training": job.training}) == job
    assert plan.training.model_copy(update={"epochs": job.training.epochs}) == job.training


def test_a_wrong_setting_is_where_it_was_typed():
    with pytest.raises(ConfigInvalid, match="did you mean rounds") as refused:
        default_plan({"roundz": 3})
    assert refused.value.where == "--set"
