"""An evaluation over real processes: each silo's trainer finds out, each silo's policy decides, aggregates alone arrive."""

import json

import pytest
import yaml

from silo_app import config
from silo_app.audit.recent import newest_records
from silo_app.encoder import checkpoint
from silo_app.encoder.evaluation_record import read_record

pytestmark = [pytest.mark.federation, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    """The record of an evaluation in which two silos take part on their terms, and one does not."""
    lab, _, _ = trained
    wanted = {
        "hospital-a": {"min_patients": 2, "groups": ["sex"]},
        "hospital-b": {"min_patients": 3, "groups": []},
        "hospital-c": {"join": False},
    }
    before = {}
    for silo, settings in wanted.items():
        file = lab.federation.kit(silo) / "local" / "silo.yaml"
        before[file] = file.read_text()
        file.write_text(yaml.safe_dump(yaml.safe_load(before[file]) | {"evaluation": settings}))
    job, record = lab.run("evaluate", "evaluation.json", {"floors": False})
    for file, content in before.items():
        file.write_text(content)
    file = tmp_path_factory.mktemp("evaluation") / "evaluation.json"
    file.write_text(json.dumps(record))
    return lab, job, file


def test_every_silo_tells_on_its_own_terms(evaluated):
    lab, job, file = evaluated
    record = read_record(file)
    assert set(record.silos) == {"hospital-a", "hospital-b"}
    assert record.refused == {"hospital-c": "The silo's policy does not allow this."}
    assert record.missing == {}
    current = checkpoint.current_version(config.load(lab.federation.kit("hospital-a")).models)
    for silo, least in (("hospital-a", 2), ("hospital-b", 3)):
        told = record.silos[silo]
        assert (told.encoder, told.kind, told.min_patients) == (current, "federated", least)
        last = next(newest_records(config.load(lab.federation.kit(silo)).audit))
        assert (last["event"], last["job"], last["encoder"]) == ("evaluation", job, current)
    assert {one.by for one in record.silos["hospital-a"].groups} <= {"sex"}
    assert record.silos["hospital-b"].groups == ()


def test_what_silos_told_together_is_in_the_record(evaluated):
    _, _, file = evaluated
    content = json.loads(file.read_text())
    told = [set(one["findings"]) for one in content["silos"].values()]
    assert set(content["pooled"]["findings"]) == set().union(*told) != set()
    assert content["pooled"]["silos"] == ["hospital-a", "hospital-b"]


def test_the_result_is_shown(evaluated, tmp_path):
    lab, _, file = evaluated
    status, envelope, text = lab.silo("evaluate", "--job", file, "--html", tmp_path / "evaluation.html")
    assert status == 0, text
    assert set(envelope["data"]["silos"]) == {"hospital-a", "hospital-b"}
    assert "hospital-c</b> did not tell" in (tmp_path / "evaluation.html").read_text()
