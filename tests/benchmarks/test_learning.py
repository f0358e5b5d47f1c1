"""What is held to a target: of the label skews that are measured, and of each of them."""

import argparse

import pytest

from benchmarks import learning
from benchmarks.harness import report

GOOD = {
    "federated_auc": 0.99,
    "federated_precision": 0.95,
    "federated_auc_over_local": 1.2,
    "federated_precision_over_raw_pixels": 1.1,
    "federated_auc_over_pooled": 0.995,
}
"""Of hospitals with much the same labels."""
SKEWED = GOOD | {"federated_auc": 0.97, "federated_precision": 0.8, "federated_auc_over_pooled": 0.975}
"""The issue wants less of these."""


def measured(monkeypatch, alphas, **means):
    """Return the benchmark's object of a run whose means are given, by name of the figure or as those above."""
    arguments = argparse.Namespace(quick=False, hospitals=[3, 10], alpha=alphas)
    monkeypatch.setattr(learning, "_means", lambda _, __, alpha: ((SKEWED if alpha <= 0.1 else GOOD) | means).items())
    return report("learning", learning.measure(arguments), learning.wanted(arguments))


@pytest.mark.parametrize("alphas", [[0.5], [0.1], [learning.IID], [0.1, 0.5, learning.IID]])
def test_only_what_was_measured_is_wanted(monkeypatch, alphas):
    result = measured(monkeypatch, alphas)
    assert set(result["targets"]) <= set(result["figures"])
    assert result["held"]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("alphas", [[0.5], [0.1, 0.5]])
def test_each_of_them_is_held_to_its_target(monkeypatch, alphas, name):
    assert not measured(monkeypatch, alphas, **{name: 0.7})["held"]


@pytest.mark.parametrize("name", ["auc_over_local", "precision_over_raw_pixels", "auc_over_pooled"])
def test_skewed_ones_too(monkeypatch, name):
    assert not measured(monkeypatch, [0.1], **{f"federated_{name}": 0.7})["held"]
