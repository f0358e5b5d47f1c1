"""`silo privacy`: spent, left, and by which jobs."""

import json

import pytest
from typer.testing import CliRunner

from silo_app import config
from silo_app.cli.main import app
from silo_app.privacy.accountant import Steps, epsilon_of
from silo_app.privacy.ledger import PrivacyLedger


@pytest.fixture
def home(tmp_path):
    (tmp_path / "local").mkdir()
    content = {"name": "st-anna", "training": {"privacy": {"epsilon_total": 8.0, "required": True}}}
    (tmp_path / "local" / "silo.yaml").write_text(json.dumps(content))
    return config.load(tmp_path)


def run(home, *words):
    return CliRunner().invoke(app, ["privacy", "--silo", str(home.kit), *words])


def paid(home):
    rounds = {"job-1": [Steps(1.5, 0.1, 10)] * 2, "job-2": [Steps(2.0, 0.2, 5)]}
    with PrivacyLedger(home.privacy) as ledger:
        for job, spent in rounds.items():
            for number, one in enumerate(spent):
                ledger.charge(job, number, one, patients=120, allowed=None, delta=1e-5)
    return rounds


def test_what_was_spent_and_what_is_left(home):
    rounds = paid(home)
    data = json.loads(run(home, "--format", "json").stdout)["data"]
    assert data["spent"] == pytest.approx(epsilon_of([one for job in rounds.values() for one in job], 1e-5))
    assert data["left"] == pytest.approx(8.0 - data["spent"])
    assert [(one["job"], one["rounds"], one["steps"], one["patients"]) for one in data["jobs"]] == [
        ("job-1", 2, 20, 120),
        ("job-2", 1, 5, 120),
    ]
    assert sum(one["epsilon"] for one in data["jobs"]) > data["spent"]


def test_what_promises_nothing_is_json_that_every_program_reads(home):
    with PrivacyLedger(home.privacy) as ledger:
        ledger.charge("job-1", 0, Steps(0.3, 1.0, 1000), patients=5, allowed=None, delta=1e-5)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    data = json.loads(run(home, "--format", "json").stdout, parse_constant=refuse)["data"]
    assert (data["spent"], data["left"], data["jobs"][0]["epsilon"]) == (None, 0.0, None)
    assert "epsilon inf of 8 allowed" in run(home).stdout


def test_for_people(home):
    paid(home)
    told = run(home).stdout
    assert "of 8 allowed" in told
    assert "jobs without differential privacy are refused" in told
    assert "job-2" in told


def test_nothing_spent_leaves_no_file(home):
    told = run(home)
    assert told.exit_code == 0
    assert "epsilon 0.00" in told.stdout
    assert "no private training yet" in told.stdout
    assert not home.privacy.exists()
