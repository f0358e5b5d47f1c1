import json
from types import SimpleNamespace

import pytest
import typer

from silo_app.cli import edge
from silo_app.cli.evaluate import evaluate
from silo_app.encoder.evaluation_record import EvaluationRecord
from tests.encoder.evaluation_answers import answer

app = typer.Typer()
app.command()(evaluate)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        edge.run(app, list(map(str, arguments)))
    return ended.value.code


@pytest.fixture
def evaluated(monkeypatch):
    """An evaluation as the domain returns it (the domain has its own tests)."""
    from silo_app.encoder import evaluate as domain
    from silo_app.encoder.metrics import FindingFigures, Interval
    from silo_app.encoder.retrieval import Neighbourhood

    area = Interval(0.9, 0.8, 0.95)
    figures = {"Pneumonia": FindingFigures(3, 4, area, area, area, area, area)}
    near = Neighbourhood(7, 0.8, {"Pneumonia": 0.8}, 0.7, 0.75, 0.4, 0.33)
    evaluation = domain.Evaluation(
        silos={"test": {"train_views": 9, "held_out_views": 7, "held_out_patients": 7}},
        findings={"pooled": figures, "test": figures},
        k=10,
        retrieval={"encoder": near, "raw pixels": near},
        retrieval_other_silos={},
        statistics_auc={"Pneumonia": 0.61},
    )

    kept = SimpleNamespace(version="a" * 32, card={"kind": "federated"})
    asked = {}

    def fake(homes, version, **options):
        asked.update(homes=homes, version=version, **options)
        return kept, evaluation

    monkeypatch.setattr(domain, "evaluate", fake)
    return asked


def test_the_file_and_the_envelope_hold_the_same_figures(evaluated, make_silo, tmp_path, capsys):
    kit, file = make_silo().kit, tmp_path / "evaluation.json"
    assert run("--silo", kit, "--json", file, "--format", "json", "--k", 5, "--no-floors") == 0
    envelope, written = json.loads(capsys.readouterr().out), json.loads(file.read_text())
    assert written == {"schema_version": 1, **envelope["data"]}
    assert written["findings"]["pooled"]["Pneumonia"]["auc"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert written["retrieval"]["encoder"]["precision"] == 0.8
    assert (evaluated["k"], evaluated["with_floors"], evaluated["version"]) == (5, False, None)


def test_people_see_floors_beside_figures_and_that_pooling_is_for_demos(evaluated, make_silo, capsys):
    kit = make_silo().kit
    assert run("--silo", kit, "--silo", kit) == 0
    printed = capsys.readouterr()
    for word in ("0.900", "0.610", "raw pixels"):
        assert word in printed.out
    assert "a machine that holds them all" in printed.err


def test_a_silo_that_is_none_is_said(tmp_path, capsys):
    assert run("--silo", tmp_path, "--format", "json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-ready"


def test_a_silo_without_an_encoder_is_said(make_silo, capsys):
    assert run("--silo", make_silo().kit, "--format", "json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "not-ready"
    assert "train-local" in error["remedy"]


@pytest.fixture
def record(tmp_path):
    silos = {"a": answer(), "b": answer(encoder="c" * 32)}
    file = tmp_path / "job" / "workspace" / "evaluation.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(EvaluationRecord(silos=silos, refused={"d": "No."}, missing={"e": "late"}).content()))
    return file


def test_what_silos_told_a_job_is_shown_as_table_json_and_page(record, tmp_path, capsys):
    page, copy = tmp_path / "evaluation.html", tmp_path / "copy.json"
    assert run("--job", record.parents[1], "--html", page, "--json", copy) == 0
    printed = capsys.readouterr()
    for words in (
        "all silos together",
        "d: did not tell. No.",
        "e: no answer (late)",
        "another encoder: b",
        "sex F",
        "a alone: 8 rounds",
    ):
        assert words in printed.out
    assert "Evaluation in 2 silos" in page.read_text()
    assert run("--job", record, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["data"] == json.loads(copy.read_text()) == json.loads(record.read_text())


@pytest.mark.parametrize("arguments", [(), ("--silo", "kit", "--html", "page.html")])
def test_what_is_missing_of_a_command_is_said(monkeypatch, capsys, arguments):
    monkeypatch.delenv("SILO", raising=False)
    assert run(*arguments, "--format", "json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "config-invalid"
