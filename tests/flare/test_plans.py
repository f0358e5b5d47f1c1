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


def job_of(folder, workflow):
    file = folder / "app/config/config_fed_server.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"workflows": [workflow]}))
    return folder


@pytest.mark.parametrize("args", [{}, {"args": None}, {"args": {"plan": "fast"}}, {"args": {"plan": [1]}}, {"args": 5}])
def test_what_a_job_of_others_is_told_is_theirs(tmp_path, args):
    job = job_of(tmp_path, {"path": "theirs.Controller"} | args)
    require_sound(job, {})
    if args:
        with pytest.raises(ConfigInvalid, match="has no settings"):
            require_sound(job, {"rounds": 1})  # it has no place for ours


@pytest.mark.parametrize("job", ["index", "survey"])
def test_no_silo_at_all_may_be_asked_for(job):
    require_sound(JOBS / job, {"min_silos": 0})
    with pytest.raises(ConfigInvalid, match="min_silos"):
        require_sound(JOBS / job, {"min_silos": -1})


def test_a_survey_needs_one_silo_at_least():
    assert SurveyEverywhere(min_silos=0).min_clients == 1


def test_the_settings_of_all_jobs_are_documented():
    page = (JOBS / "README.md").read_text()
    for job in ("index", "search", "survey", "evaluate"):
        (workflow,) = json.loads((JOBS / job / "app/config/config_fed_server.json").read_text())["workflows"]
        settings = workflow["args"].get("plan", workflow["args"])
        section = page.partition(f"## Settings of `{job}`")[2].partition("\n## ")[0]
        assert [name for name in settings if f"| `{name}` |" not in section] == []
