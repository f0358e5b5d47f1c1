"""What the benchmark of the demo reads from the demo's own record: a step or an answer that is missing is missed."""

import json
from pathlib import Path

import pytest

from benchmarks import demo

ROOT = Path(__file__).parents[2]


def answered(*states):
    return {"result": {"silos": [{"silo": f"h-{n}", "state": state} for n, state in enumerate(states)]}}


@pytest.fixture
def facts():
    return {
        "seconds": {f"{step} and so on": 1.5 for step in demo.STEPS},
        "server": {"files": 20, "needles": 300, "leaks": []},
        "search": answered("answered", "answered"),
        "search_without": answered("answered", "unreachable"),
        "training": {"record": {"rounds": [{"number": 0, "void": ""}, {"number": 1, "void": ""}]}},
    }


def missed(facts, *, reported=True, running=0):
    figures = demo.figures_of(facts, seconds=60.0, reported=reported, running=running)
    values = {figure.name: figure.value for figure in figures}
    return {target.figure for target in demo.TARGETS if not target.holds(values.get(target.figure))}


def test_a_whole_demo_meets_every_target(facts):
    assert missed(facts) == set()


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"seconds": {"Ingest: each hospital": 1.0}}, "steps_done"),
        ({"server": {"files": 1, "leaks": ["job.log: a private key"]}}, "leaks"),
        ({"search": answered("answered", "late")}, "answered"),
        ({"search_without": answered("late", "unreachable")}, "answered_with_one_killed"),
        ({"training": {"record": {"rounds": [{"number": 0, "void": "1 silos can take part"}]}}}, "rounds_with_a_sum"),
    ],
)
def test_what_is_wrong_is_missed(facts, change, figure):
    assert missed(facts | change) == {figure}


def test_the_encoder_s_quality_is_told_as_the_demo_evaluated_it(facts):
    pooled = {"Pneumonia": {"auc": {"value": 0.9}}, "Nodule": {"auc": {"value": 0.8}}}
    retrieval = {"encoder": {"precision": 0.7}, "raw pixels": {"precision": 0.5}, "untrained encoder": {"precision": None}}
    told = facts | {"evaluation": {"findings": {"pooled": pooled}, "retrieval": retrieval}}
    values = {one.name: one.value for one in demo.figures_of(told, seconds=60.0, reported=True, running=0)}
    assert values["auc"] == pytest.approx(0.85)
    assert (values["precision_at_10_encoder"], values["precision_at_10_raw_pixels"]) == (0.7, 0.5)
    assert "precision_at_10_untrained_encoder" not in values


@pytest.mark.parametrize(
    ("typed", "timed"),
    [([], True), (["--json", "-"], True), (["--quick"], False), (["--data=a.zip"], False), (["--rounds", "2"], False)],
)
def test_only_the_demo_as_it_comes_has_to_end_in_time(monkeypatch, capsys, typed, timed):
    monkeypatch.setattr(demo, "measure", lambda _: [])
    demo.main("demo", demo.measure, demo.wanted, describe="", options=demo._options, argv=[*typed, "--json", "-"])
    assert (demo.TIME_TARGET.figure in json.loads(capsys.readouterr().out)["targets"]) is timed


def test_a_demo_that_broke_off_misses_what_it_did_not_do():
    assert missed({}, reported=False, running=2) >= {
        "steps_done",
        "report_written",
        "answered",
        "left_running",
        "leaks",
    }


def test_the_steps_are_those_of_the_demo():
    source = (ROOT / "provisioning" / "demo.py").read_text(encoding="utf-8")
    assert [step for step in demo.STEPS if f'phase("{step}' not in source and f'phase(f"{step}' not in source] == []
    assert source.count("steps.phase(") == len(demo.STEPS)
