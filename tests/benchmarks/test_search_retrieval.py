"""The comparison of a federation with one pooled index: equal with ties, and able to see a difference."""

import numpy as np
import pytest

from benchmarks import search_retrieval
from silo_app.cases import CaseId, Finding, PatientKey, Split, View
from silo_app.encoder.dataset import Images
from silo_app.encoder.evaluate import SiloImages


@pytest.fixture
def hospitals():
    random = np.random.default_rng(0)
    distinct = random.standard_normal((12, 8)).astype(np.float32)
    distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
    found, vectors = [], {}
    for number in range(3):
        views = [
            View(
                digest="",
                case=CaseId(""),
                patient=PatientKey(f"{number}-{row}"),
                split=Split.HELD_OUT if row % 5 == 0 else Split.TRAIN,
                findings={Finding.PNEUMONIA: bool(random.integers(2))},
            )
            for row in range(40)
        ]
        nothing = np.zeros((40, 1))
        images = Images(views, np.zeros((40, 8, 8), np.uint8), nothing.astype(np.float32), nothing.astype(np.bool_))
        found.append(SiloImages(f"hospital-{number}", images))
        vectors[f"hospital-{number}"] = distinct[random.integers(0, 12, 40)]  # so that many cases tie, across hospitals
    return found, vectors


def test_divided_and_pooled_are_the_same_to_the_last_digit(hospitals, tmp_path):
    values = {figure.name: figure.value for figure in search_retrieval.compared(*hospitals, tmp_path)}
    assert [target.figure for target in search_retrieval.TARGETS if not target.holds(values.get(target.figure))] == []
    assert values["retrieval_tied"] == 1.0
    assert 0.0 < values["retrieval_map"] < 1.0


def test_a_hospital_that_is_left_out_shows(hospitals, tmp_path, monkeypatch):
    merge = search_retrieval.merge
    monkeypatch.setattr(search_retrieval, "merge", lambda answers, k: merge(answers[1:], k))
    values = {figure.name: figure.value for figure in search_retrieval.compared(*hospitals, tmp_path)}
    assert values["retrieval_same_rankings"] == 0.0
    assert values["retrieval_map_difference"] > 0.0
