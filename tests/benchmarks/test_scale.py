"""The simulation of many silos, with few: what it reports is measured, and a silo that hangs is named."""

from benchmarks import scale


def test_a_search_of_simulated_silos_is_whole_and_exact():
    figures, cost_ms = scale.searched(scale.identities(6), 2)
    assert figures["answered"] == figures["equal"] == 1.0
    assert cost_ms > 0


def test_silos_that_hang_are_late_and_nobody_else(monkeypatch):
    monkeypatch.setattr(scale, "HANGING_MS", 2000)
    figures = {figure.name: figure.value for figure in scale.hanging(scale.identities(4))}
    assert figures["search_hanging_named"] == 1.0


def test_a_sum_of_simulated_silos_is_their_mean():
    figures, cost_s = scale.summed(3)
    assert figures["error"] <= next(target.limit for target in scale.TARGETS if target.figure == "sum_error")
    assert cost_s > 0


def test_every_target_is_measured(monkeypatch):
    figures = {"answered": 1.0, "equal": 1.0, "broker_ms": 2.0, "asker_ms": 1.0, "result_kb": 1.0}
    monkeypatch.setattr(scale, "identities", lambda count: [None] * count)
    monkeypatch.setattr(scale, "searched", lambda members, _: (figures, 1.0))
    monkeypatch.setattr(scale, "summed", lambda _: ({"silo_s": 1.0, "error": 0.0}, 1.0))
    late = scale.Figure("search_hanging_past_deadline_ms", 0.0, ""), scale.Figure("search_hanging_named", 1.0, "")
    monkeypatch.setattr(scale, "hanging", lambda _: list(late))
    names = {figure.name for figure in scale.measure(scale.argparse.Namespace(quick=True))}
    assert {target.figure for target in scale.TARGETS} <= names
