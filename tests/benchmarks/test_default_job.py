"""What benchmarks train is the job that a researcher submits, but for what the command line says."""

import argparse
import json

import pytest

from benchmarks.default_job import PLAN_FILE, add_settings, default_plan


def told(*words):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return parser.parse_args(words).settings


def test_without_settings_it_is_the_job():
    (workflow,) = json.loads(PLAN_FILE.read_text())["workflows"]
    given = workflow["args"]["plan"]
    plan = default_plan(seed=3, epochs=32, settings=told())
    content = plan.model_dump(mode="json")
    assert {name: content[name] for name in ("rounds", "fairness", "weigh", "personal")} == {
        name: given[name] for name in ("rounds", "fairness", "weigh", "personal")
    }
    assert plan.training.epochs * plan.rounds == pytest.approx(32)


def test_settings_stand_in_the_place_of_the_jobs_and_leave_the_others():
    before, plan = (
        default_plan(seed=1, epochs=8, settings=told(*words))
        for words in ((), ("--set", "fairness=0.5", "training.squares=kept", "rounds=64"))
    )
    assert (plan.fairness, plan.training.squares, plan.rounds) == (0.5, "kept", 64)
    assert plan.training.epochs == 8 / 64
    assert plan.training.learning_rate == before.training.learning_rate


def test_what_is_no_setting_is_said(capsys):
    with pytest.raises(SystemExit):
        told("--set", "fairness")
    assert "NAME=VALUE" in capsys.readouterr().err
