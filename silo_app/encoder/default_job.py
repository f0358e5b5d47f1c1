"""The plan of `jobs/train` as it stands: whoever trains without a job, trains with its settings."""

from collections.abc import Mapping
from typing import Any

from silo_app.encoder.checked_plan import OPTION
from silo_app.encoder.plan import TrainingPlan
from silo_app.job_files import arguments_of, jobs_folder, read_server_file
from silo_app.overrides import override

__all__ = ["default_plan"]


def default_plan(settings: Mapping[str, Any]) -> TrainingPlan:
    """Return the plan of our training job with `settings` in the place of its own, by dotted names.

    Raises `ConfigInvalid` naming every wrong one, `NotReady` where our jobs are not installed.
    """
    plan = arguments_of(read_server_file(jobs_folder() / "train"), plan=True)
    override(plan, settings)
    return TrainingPlan.checked(plan, OPTION)
