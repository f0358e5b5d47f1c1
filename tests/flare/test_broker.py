"""The search job follows who is in the federation, without being submitted again."""

import json
from types import SimpleNamespace

import pytest

from silo_app.flare.broker import SearchBroker


@pytest.fixture
def job(tmp_path):
    """A search job of two hospitals, and what it told."""
    made = SearchBroker()
    made._kit, made._silos, made.told = tmp_path, ("a", "b"), []
    made.log_info = made.log_error = lambda _fl_ctx, text: made.told.append(text)
    (tmp_path / "local").mkdir()
    return made


def follow(job, content):
    asked = []
    (job._kit / "local" / "consortium.json").write_text(content)
    job._follow_members(SimpleNamespace(ask_these=asked.append), None)
    return asked


def test_a_hospital_that_joined_and_one_that_left(job):
    assert follow(job, json.dumps({"silos": ["c", "a"], "anchor": "x"})) == [("a", "c")]
    assert job.told == ["the search broker is up for a, c now"]
    assert follow(job, json.dumps({"silos": ["a", "c"], "anchor": "x"})) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_file_that_cannot_be_read_changes_nothing(job, content):
    assert follow(job, content) == []
    assert job._silos == ("a", "b")
    assert "as it was before" in job.told[0]
