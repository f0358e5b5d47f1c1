"""The server's record names who is not in a round, and has nothing that the server must not know."""

import json

from silo_app.encoder.job_record import JobRecord, Quarantined, RoundRecord


def entry(**more):
    record = RoundRecord(number=2, content="update", round=1, participants=("a", "b", "c"), contributors=("a", "b"), **more)
    record.quarantine({"c": Quarantined.absence("late", "update")})
    return record


def test_a_silo_keeps_the_reason_that_came_first():
    record = entry()
    record.quarantine({"c": Quarantined.absence("gone", "sign"), "b": Quarantined.absence("gone", "reveal")})
    assert record.content_of()["quarantined"] == {
        "b": {"code": "gone", "public": "Its job process was not there.", "step": "reveal"},
        "c": {"code": "late", "public": "It did not answer before the deadline.", "step": "update"},
    }


def test_a_round_in_one_sentence():
    assert entry().sentence() == "round 2: sum of a, b; without c: late (update)"
    assert entry(void="too few").sentence() == "round 2: void: too few; without c: late (update)"


def test_the_file_is_written_whenever_something_happened(tmp_path):
    file = tmp_path / "rounds.json"
    record = JobRecord(file, "job-2", {"rounds": 2}, ("job-1",))
    record.step("join", ["b", "a"], {"c": Quarantined(code="not-ready", public="Not ready.", step="join")})
    record.add(entry())
    record.add(RoundRecord(number=0, content="statistics"))
    record.end("failed", code="round-refused", problem="nobody came")
    content = json.loads(file.read_text())
    assert content["resumes"] == ["job-1"]
    assert content["join"]["accepted"] == ["a", "b"]
    assert content["join"]["quarantined"]["c"]["code"] == "not-ready"
    assert (len(content["rounds"]), len(content["statistics"])) == (1, 1)
    assert content["state"] == "failed"
    assert content["failed"] == {"code": "round-refused", "problem": "nobody came"}
