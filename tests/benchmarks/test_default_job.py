"""What benchmarks train is the job that a researcher submits, but for what the command line says."""

import argparse

import pytest

from benchmarks.default_job import add_settings, default_plan
from silo_app.encoder import default_job


def told(*words):
    parser = argparse.ArgumentParser()
    add_settings(parser)
    return parser.parse_args(words).settings


def test_without_settings_it_is_the_job():
    plan, job = default_plan(seed=3, epochs=32, settings=told()), default_job.default_plan({})
    assert plan.training.epochs * plan.rounds == pytest.approx(32)
    training = plan.training.model_copy(update={"epochs": job.training.epochs})
    assert plan.model_copy(update={"seed": job.seed, "training": training}) == job


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
