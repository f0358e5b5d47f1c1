"""Our jobs as they stand are sound, and the classes that run them take what the models say."""

import inspect
import json
from pathlib import Path

import pytest

from silo_app.errors import ConfigInvalid
from silo_app.flare.broker import SearchBroker
from silo_app.flare.indexing import IndexEverywhere
from silo_app.flare.plans import IndexPlan, SearchPlan, SurveyPlan, require_sound
from silo_app.flare.survey import SurveyEverywhere

JOBS = Path(__file__).parents[2] / "jobs"
PLAIN = [(IndexEverywhere, IndexPlan), (SearchBroker, SearchPlan), (SurveyEverywhere, SurveyPlan)]


@pytest.mark.parametrize("job", sorted(path.parent.name for path in JOBS.glob("*/meta.json")))
def test_every_job_of_ours_is_checked_and_sound(job):
    require_sound(JOBS / job, {})
    with pytest.raises(ConfigInvalid, match="unknown setting no_such_setting"):
        require_sound(JOBS / job, {"no_such_setting": 1})


@pytest.mark.parametrize(("controller", "plan"), PLAIN)
def test_a_class_takes_the_settings_of_its_model_with_the_same_defaults(controller, plan):
    parameters = inspect.signature(controller).parameters
    assert {name: one.default for name, one in parameters.items()} == plan().model_dump()


@pytest.mark.parametrize(("controller", "plan"), PLAIN)
def test_a_class_refuses_what_its_model_refuses(controller, plan):
    name = next(iter(plan.model_fields))
    with pytest.raises(ConfigInvalid, match=name):
        controller(**{name: "soon"})


def test_the_settings_of_all_jobs_are_documented():
    page = (JOBS / "README.md").read_text()
    for job in ("index", "search", "survey", "evaluate"):
        (workflow,) = json.loads((JOBS / job / "app/config/config_fed_server.json").read_text())["workflows"]
        settings = workflow["args"].get("plan", workflow["args"])
        section = page.partition(f"## Settings of `{job}`")[2].partition("\n## ")[0]
        assert [name for name in settings if f"| `{name}` |" not in section] == []
