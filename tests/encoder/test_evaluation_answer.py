"""The form of an answer: what is not an aggregate, or is one of few patients, has no place in it."""

import json

import pytest

from silo_app.encoder.evaluation_answer import SiloAnswer, is_printable
from silo_app.errors import MessageInvalid
from tests.encoder.evaluation_answers import answer, content, figures, finding, near


def test_an_answer_travels_as_json_and_comes_out_the_same():
    told = answer()
    assert SiloAnswer.checked(json.loads(told.model_dump_json())) == told


ABSENT = finding()["absent_scores"][0]
FEW = {"queries": 9, "patients": 4, "precision": 0.5, "average_precision": 0.5, "ndcg": 0.5}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"held_out_patients": 4}, "figures over fewer than 5 patients: all"),
        ({"findings": {"Pneumonia": finding(4, 30)}}, "fewer than 5 patients: all: Pneumonia"),
        ({"findings": {"Pneumonia": finding(20, 4)}}, "fewer than 5 patients: all: Pneumonia"),
        ({"held_out_patients": 28}, "fewer than 5 patients: unknown: Pneumonia"),
        ({"held_out_patients": 26}, "fewer than 5 patients: unknown: Pneumonia"),
        ({"retrieval": {"encoder": {"classes": {"Pneumonia": FEW}}}}, "all: neighbours, Pneumonia"),
        (
            {"groups": [{"by": "sex", "value": "F", "findings": {"Mass": figures(4, 9)}, "retrieval": near()}]},
            "fewer than 5 patients: sex F: Mass",
        ),
        (
            {"groups": [{"by": "sex", "value": "F", "findings": {}, "retrieval": {"classes": {"Mass": FEW}}}]},
            "sex F: neighbours, Mass",
        ),
        ({"findings": {"Pneumonia": finding(8, 30)}}, "fewer than 5 patients: scores: Pneumonia"),
        (
            {"findings": {"Pneumonia": finding() | {"reliability": [finding()["reliability"][0] | {"present": 19}]}}},
            "a bin of the reliability diagram is not of whole segments of scores",
        ),
        (
            {"findings": {"Pneumonia": finding() | {"reliability": [finding()["reliability"][0] | {"stop": 6}]}}},
            "a bin of the reliability diagram is not of whole segments of scores",
        ),
        (
            {"findings": {"Pneumonia": finding() | {"absent_scores": [ABSENT | {"patients": 14}]}}},
            "segments of scores do not add up to the views and patients",
        ),
        (
            {"findings": {"Pneumonia": finding(20, 9) | {"absent_scores": [ABSENT | {"views": 9}], "absent_patients": 15}}},
            "a segment of scores has more patients than views",
        ),
        ({"min_patients": 1}, "min_patients: Input should be greater than or equal to 2"),
        ({"findings": {"Pneumonia": finding() | {"scores": [0.1, 0.2]}}}, "Extra inputs are not permitted"),
        ({"findings": {"P0017": finding()}}, "Input should be 'Atelectasis'"),
        ({"findings": {"Pneumonia": finding(value=1.5)}}, "less than or equal to 1"),
        ({"findings": {"Pneumonia": finding(value=float("nan"))}}, "findings"),
        (
            {"findings": {"Pneumonia": finding() | {"present": 21}}},
            "segments of scores do not add up to the views and patients",
        ),
        (
            {"findings": {"Pneumonia": finding() | {"absent_scores": [ABSENT | {"start": 1}]}}},
            "segments of scores do not cover the grid",
        ),
        ({"groups": [{"by": "age_band", "value": "P0017", "findings": {}, "retrieval": near()}]}, "there is no age_band"),
        ({"groups": [{"by": "device", "value": "a\nb", "findings": {}, "retrieval": near()}]}, "should match pattern"),
        ({"own": {"Mass": figures(8, 9)}}, "a floor, a gap or an own network's figure of a finding that is not told"),
        ({"own": {"Pneumonia": figures(4, 9)}}, "fewer than 5 patients: own network: Pneumonia"),
        ({"statistics_auc": {"Mass": 0.5}}, "a floor, a gap or an own network's figure of a finding that is not told"),
        ({"encoder": "../models"}, "should match pattern"),
    ],
)
def test_what_is_no_aggregate_of_enough_patients_is_refused(changes, problem):
    with pytest.raises(MessageInvalid, match="this is no answer to an evaluation") as refused:
        answer(**changes)
    assert problem in str(refused.value)


def test_a_refused_value_is_not_repeated():
    with pytest.raises(MessageInvalid) as refused:
        SiloAnswer.checked(content(kind="Doe^Jane 1970"))
    assert "Jane" not in str(refused.value)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\n", "\x1b[31m", "Ärger"])
def test_a_device_with_another_name_is_not_told(name):
    assert not is_printable(name)


def test_a_device_as_headers_have_it_is_told():
    assert is_printable("GE MEDICAL SYSTEMS Definium 8000")
