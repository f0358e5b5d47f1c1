"""What each of our jobs may be told: one model, for whoever submits the job and for the class on the server that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from silo_app.encoder.checked_plan import OPTION, checked_plan
from silo_app.encoder.plan import TrainingPlan
from silo_app.encoder.tell import EvaluationPlan
from silo_app.errors import ConfigInvalid
from silo_app.job_files import SERVER_FILE, arguments_of, read_server_file, workflow_of
from silo_app.overrides import override
from silo_app.search.messages import MOST_MS

__all__ = ["IndexPlan", "SearchPlan", "SurveyPlan", "require_sound", "with_settings"]

_WEEK_S = 7 * 86_400


class IndexPlan(BaseModel):
    """The settings of `jobs/index`; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deadline_s: float = Field(default=7200.0, gt=0, le=_WEEK_S)
    min_silos: int = Field(default=1, ge=0, le=1000)
    """The job fails when fewer silos answer; with 0 indexing never does, and a survey still needs one."""


class SurveyPlan(IndexPlan):
    """The settings of `jobs/survey`."""

    deadline_s: float = Field(default=600.0, gt=0, le=_WEEK_S)


class SearchPlan(BaseModel):
    """The settings of `jobs/search`; immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    silo_budget_ms: int = Field(default=1000, ge=1, le=MOST_MS)
    """How long silos may take where the asker says nothing."""
    longest_budget_ms: int = Field(default=MOST_MS, ge=1, le=MOST_MS)
    """How long they may take at most, whatever the asker says."""
    announce_every_s: float = Field(default=3.0, gt=0, le=3600)


@dataclass(frozen=True)
class _Ours:
    model: type[BaseModel]
    plan: bool = False
    """Whether the class takes its settings as one `plan`, or each as an argument."""


_JOBS = {
    "silo_app.flare.broker.SearchBroker": _Ours(SearchPlan),
    "silo_app.flare.evaluation.EvaluateEverywhere": _Ours(EvaluationPlan, plan=True),
    "silo_app.flare.indexing.IndexEverywhere": _Ours(IndexPlan),
    "silo_app.flare.survey.SurveyEverywhere": _Ours(SurveyPlan),
    "silo_app.flare.training.TrainingRounds": _Ours(TrainingPlan, plan=True),
}


def require_sound(folder: Path, settings: Mapping[str, Any], option: str = OPTION) -> None:
    """Check the job in `folder` with `settings` in the place of its own, if it is one of ours.

    Raises `ConfigInvalid` naming every wrong setting at once: where the file is wrong by itself, in that file.
    """
    if not settings and not (folder / SERVER_FILE).is_file():
        return  # a job of others may have another layout
    content = read_server_file(folder)
    ours = _JOBS.get(workflow_of(content))
    if ours is None and not settings:
        return  # what others call `plan`, or leave empty, is theirs
    merged = with_settings(folder, settings)
    if ours is None:
        return
    try:
        checked_plan(ours.model, arguments_of(merged, plan=ours.plan), option)
    except ConfigInvalid:
        checked_plan(ours.model, arguments_of(content, plan=ours.plan), str(folder / SERVER_FILE))
        raise


def with_settings(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the server's file of a job with `settings` in the place of its own, by dotted names.

    Raises `ConfigInvalid` for a name without a place, or a job without any.
    """
    content = read_server_file(folder)
    ours = _JOBS.get(workflow_of(content))
    override(arguments_of(content, plan=ours.plan if ours else None), settings)
    return content
