"""What every benchmark prints, writes and returns."""

import json

import pytest

from benchmarks import harness


@pytest.mark.parametrize(("target", "status"), [((2.0, False), 0), ((1.9, False), 1), ((2.0, True), 0), ((2.1, True), 1)])
def test_the_exit_status_says_whether_all_targets_hold(tmp_path, capsys, target, status):
    file = tmp_path / "result.json"
    returned = harness.main(
        "example",
        lambda arguments: [harness.Figure("ratio", 2.0, "x"), harness.Figure("quick", arguments.quick, "")],
        [harness.Target("quick", 1.0), harness.Target("ratio", *target)],
        describe="An example.",
        argv=["--quick", "--json", str(file)],
    )
    result = json.loads(file.read_text())
    assert returned == status
    assert list(result) == ["name", "machine", "date", "figures", "targets", "held"]
    assert result["held"] is (status == 0)
    assert result["figures"]["ratio"] == {"value": 2.0, "unit": "x"}
    limit, at_least = target
    assert result["targets"] == {"quick": ["<=", 1.0], "ratio": [">=" if at_least else "<=", limit]}
    assert ("MISSED" in capsys.readouterr().out) is (status == 1)


def test_a_dash_writes_the_object_alone_to_standard_output(capsys):
    harness.main("example", lambda _: [harness.Figure("ratio", 2.0, "x")], describe="An example.", argv=["--json", "-"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["figures"]["ratio"]["value"] == 2.0
    assert "ratio" in printed.err


def test_a_target_that_was_not_measured_is_missed(capsys):
    assert harness.main("example", lambda _: [], [harness.Target("ratio", 1.0)], describe="An example.", argv=[]) == 1
    assert "not measured" in capsys.readouterr().out


def test_the_machine_is_described_and_not_named():
    assert set(harness.machine()) == {"processor", "cores", "memory_gb", "system", "python"}


def test_a_benchmark_may_take_its_own_options(capsys):
    returned = harness.main(
        "example",
        lambda arguments: [harness.Figure("silos", arguments.silos, "")],
        describe="An example.",
        options=lambda parser: parser.add_argument("--silos", type=int, default=3) and None,
        argv=["--silos", "5"],
    )
    assert returned == 0
    assert "5" in capsys.readouterr().out
