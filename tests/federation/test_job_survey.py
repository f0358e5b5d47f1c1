"""A survey over real processes: every silo answers on its own terms, which the job cannot change."""

import json

import pytest
import yaml

from silo_app import config
from silo_app.audit.recent import newest_records
from silo_app.catalogue import Catalogue
from silo_app.privacy.questions import exact_counts
from silo_app.privacy.result import read_result
from tests.federation.conftest import JOBS

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def policies(lab):
    """Three hospitals, three policies: exact counts, noise, no part in it."""
    wanted = {
        "hospital-a": {"epsilon": None, "min_count": 2},
        "hospital-b": {"epsilon": 20.0, "epsilon_total": 20.0, "min_count": 3},
        "hospital-c": {"join": False},
    }
    before = {}
    for silo, settings in wanted.items():
        file = lab.federation.kit(silo) / "local" / "silo.yaml"
        before[file] = file.read_text()
        file.write_text(yaml.safe_dump(yaml.safe_load(before[file]) | {"survey": settings}))
    yield wanted
    for file, content in before.items():
        file.write_text(content)


@pytest.fixture(scope="module")
def surveyed(lab, policies, tmp_path_factory):
    job, record = lab.run("survey", "survey.json")
    file = tmp_path_factory.mktemp("survey") / "survey.json"
    file.write_text(json.dumps(record))
    return job, record, file


def test_every_silo_answers_on_its_own_terms(lab, surveyed):
    job, _record, file = surveyed
    result = read_result(file)
    assert set(result.silos) == {"hospital-a", "hospital-b"}
    assert result.refused == {"hospital-c": "The silo's policy does not allow this."}
    assert list(result.missing) == []
    assert (result.silos["hospital-a"].epsilon, result.silos["hospital-a"].min_count) == (None, 2)
    assert (result.silos["hospital-b"].epsilon, result.silos["hospital-b"].min_count) == (20.0, 3)
    for silo, event in (("hospital-a", "survey"), ("hospital-b", "survey")):
        last = next(newest_records(config.load(lab.federation.kit(silo)).audit))
        assert (last["event"], last["job"]) == (event, job)


def test_what_arrives_is_what_the_catalogue_holds_without_small_counts(lab, surveyed):
    _, record, _ = surveyed
    with Catalogue.open(config.load(lab.federation.kit("hospital-a")).catalogue) as catalogue:
        exact = exact_counts(catalogue)
        patients = catalogue.counts().patients
    told = record["silos"]["hospital-a"]["counts"]
    assert told["patients"] == [patients]
    assert sum(told["sex"]) <= patients
    for name, cells in told.items():
        assert all(count == 0 or (count == true and count >= 2) for count, true in zip(cells, exact[name], strict=True))
    noisy = record["silos"]["hospital-b"]["counts"]
    assert all(count == 0 or count >= 3 for name, cells in noisy.items() if name != "brightness" for count in cells)


def test_the_sums_are_nvflares(surveyed):
    _, record, _ = surveyed
    for name, cells in record["all"].items():
        parts = [answer["counts"].get(name, [0] * len(cells)) for answer in record["silos"].values()]
        assert cells == [sum(column) for column in zip(*parts, strict=True)]


def test_the_result_is_shown(lab, surveyed, tmp_path):
    _, _, file = surveyed
    status, envelope, text = lab.silo("survey", "show", file, "--html", tmp_path / "survey.html")
    assert status == 0, text
    assert set(envelope["data"]["silos"]) == {"hospital-a", "hospital-b"}
    assert "hospital-c</b> refused" in (tmp_path / "survey.html").read_text()


def test_the_job_names_no_filter_and_only_our_classes():
    text = "".join(file.read_text() for file in (JOBS / "survey").rglob("*.json"))
    assert "nvflare" not in text
    assert "filter" not in text
