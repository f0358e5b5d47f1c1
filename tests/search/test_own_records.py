"""The log of a process that may end while it asks has an end of every question."""

import json

import pytest

from silo_app.audit.log import verify
from silo_app.search.own_records import AskingLog, asks, begun


def question(number):
    return asks(f"{number:032x}", mode="plain", user="dr.x", purpose="care", encoder="ab")


def test_what_has_no_end_when_it_closes_has_failed_and_nothing_comes_after(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AskingLog(path)
    one, two, three = map(question, range(3))
    log.append_all([("asking", one), ("asking", two), ("asking", three)])
    log.append("asked", {**one, "k": 10})
    log.append("shown", {"asked_query": two["asked_query"], "user": "", "cases": []})
    log.append("asking-failed", {**three, "code": "not-ready"})
    log.close()
    log.close()
    *_, last = records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in records] == ["asking"] * 3 + ["asked", "shown", "asking-failed", "asking-failed"]
    assert {name: last[name] for name in (*two, "code")} == two | {"code": "process-failed"}
    with pytest.raises(OSError, match="this process is ending"), begun(log, [one]):
        pytest.fail("it is asked")
    verify(path)
    assert len(path.read_text().splitlines()) == len(records)
