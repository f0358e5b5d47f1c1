"""The gains that the findings benchmark is held to: every hospital's, over the findings that every seed can judge."""

import argparse

import pytest

from benchmarks import findings


def hospital(own, shared, tuned):
    return {"own": own, "shared": shared, "tuned": tuned}


@pytest.fixture
def figures(monkeypatch):
    child = {"Pneumonia": 0.9}
    runs = [
        [
            hospital(child, {"Pneumonia": 0.95}, {"Pneumonia": 0.92}),
            hospital(child, {"Pneumonia": 0.87}, {"Pneumonia": 0.91}),
            hospital({"Edema": 0.6, "Hernia": 0.5}, {"Edema": 0.8, "Hernia": 0.1}, {"Edema": 0.7, "Hernia": 0.1}),
        ],
        [
            hospital(child, {"Pneumonia": 0.95}, {"Pneumonia": 0.92}),
            hospital(child, {"Pneumonia": 0.91}, {"Pneumonia": 0.93}),
            hospital({"Edema": 0.7}, {"Edema": 0.8}, {"Edema": 0.7}),
        ],
    ]
    monkeypatch.setattr(findings, "in_processes", lambda *_: runs)
    found = findings.measure(argparse.Namespace(first_seed=1, seeds=2, quick=False))
    return {one.name: one.value for one in found}


def test_a_finding_that_one_seed_cannot_judge_is_left_out(figures):
    assert figures["findings"] == 1
    assert figures["mean_gain"] == pytest.approx(0.05)
    assert figures["mean_gain_of_shared"] == pytest.approx(0.15)
    assert not any(name.startswith("Hernia") for name in figures)


def test_the_least_gain_is_that_of_the_hospital_that_gains_least(figures):
    assert figures["hospital-1: own AUC"] == pytest.approx(0.9)
    assert figures["least_gain_of_shared"] == pytest.approx(-0.01)
    assert figures["least_gain_of_tuned"] == pytest.approx(0.02)
