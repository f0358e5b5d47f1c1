"""What silos' answers say together, and the record that holds both."""

import json

import pytest

from silo_app.encoder.evaluation_pool import encoder_of, pooled
from silo_app.encoder.evaluation_record import EvaluationRecord, read_record
from silo_app.errors import MessageInvalid, NotReady
from tests.encoder.evaluation_answers import answer, content, finding, near

SILOS = {"a": answer(), "b": answer(findings={"Pneumonia": finding(10, 60, 0.7)}), "c": answer(encoder="c" * 32)}


def test_only_the_encoder_that_most_silos_evaluated_is_pooled():
    assert encoder_of(SILOS) == "a" * 32
    assert encoder_of({"x": answer(encoder="f" * 32), "y": answer(encoder="e" * 32)}) == "e" * 32
    assert encoder_of({}) is None
    together = pooled(SILOS)
    assert (together["encoder"], together["silos"], together["held_out_patients"]) == ("a" * 32, ["a", "b"], 80)


def test_counts_add_up_and_means_are_weighted():
    one = pooled(SILOS)["findings"]["Pneumonia"]
    assert (one["silos"], one["present"], one["absent"]) == (2, 30, 90)
    assert one["auc_inside_silos"]["value"] == pytest.approx((0.9 + 0.7) / 2)  # 600 pairs each
    assert one["auc_inside_silos"]["high"] - one["auc_inside_silos"]["low"] == pytest.approx(0.1 / 2**0.5, abs=2e-4)
    assert one["calibration_error_at_most"] == pytest.approx((50 * 0.9 + 70 * 0.7) / 120, abs=1e-4)
    assert one["auc"]["least"] <= one["auc"]["value"] <= one["auc"]["most"]


def test_neighbours_are_means_over_all_silos_queries():
    silos = {
        "a": answer(retrieval={"encoder": near(30, 0.9)}),
        "b": answer(retrieval={"encoder": near(10, 0.5), "raw pixels": near(10, 0.4)}),
    }
    told = pooled(silos)["retrieval"]
    assert told["encoder"]["precision"] == pytest.approx(0.8)
    assert told["encoder"]["queries"] == {"Pneumonia": 40}
    assert told["raw pixels"]["precision"] == pytest.approx(0.4)
    assert "local-only encoder" not in told


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = EvaluationRecord(silos=SILOS, refused={"d": "No."}, missing={"e": "late"})
    file = tmp_path / "job" / "workspace" / "evaluation.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record.content()))
    assert read_record(file) == record
    assert read_record(tmp_path / "job") == record


def test_a_record_without_answers_is_one_too(tmp_path):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(EvaluationRecord(silos={}, refused={}, missing={"a": "gone"}).content()))
    assert read_record(file).missing == {"a": "gone"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it is no JSON"),
        ("[]", "TypeError"),
        ('{"schema_version": 2}', "it is of another version"),
        ('{"schema_version": 1, "silos": {}}', "KeyError"),
        (
            json.dumps({"schema_version": 1, "silos": {"a": content(held_out_patients=1)}, "refused": {}, "missing": {}}),
            "figures over fewer than 5 patients",
        ),
    ],
)
def test_what_is_no_record_is_said(tmp_path, text, problem):
    file = tmp_path / "evaluation.json"
    file.write_text(text)
    with pytest.raises(MessageInvalid, match=problem):
        read_record(file)


def test_no_record_at_all_is_said(tmp_path):
    with pytest.raises(NotReady, match="there is no record of an evaluation"):
        read_record(tmp_path)
