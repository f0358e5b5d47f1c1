import json

import pytest

from provisioning import stale_jobs


def store(kit, **statuses):
    for job, status in statuses.items():
        folder = kit / "store" / "jobs" / job
        folder.mkdir(parents=True)
        (folder / "meta").write_text(json.dumps({"job_id": job, "status": status, "name": "train"}))


def statuses(kit):
    return {file.parent.name: json.loads(file.read_text())["status"] for file in kit.glob("store/jobs/*/meta")}


def test_only_what_was_running_is_closed(tmp_path):
    store(tmp_path, one="RUNNING", two="FINISHED:COMPLETED", three="SUBMITTED", four="DISPATCHED")
    assert stale_jobs.close(tmp_path) == ["four", "one"]
    assert statuses(tmp_path) == {
        "one": "FINISHED:ABNORMAL",
        "two": "FINISHED:COMPLETED",
        "three": "SUBMITTED",
        "four": "FINISHED:ABNORMAL",
    }
    assert stale_jobs.close(tmp_path) == []


def test_the_rest_of_the_jobs_record_stays(tmp_path):
    store(tmp_path, one="RUNNING")
    stale_jobs.close(tmp_path)
    assert json.loads((tmp_path / "store/jobs/one/meta").read_text())["name"] == "train"


@pytest.mark.parametrize("content", ["", "[]", "not json"])
def test_an_unreadable_record_stops_nothing(tmp_path, content):
    store(tmp_path, one="RUNNING", two="RUNNING")
    (tmp_path / "store/jobs/one/meta").write_text(content)
    assert stale_jobs.close(tmp_path) == ["two"]


def test_a_new_server_has_no_jobs(tmp_path):
    assert stale_jobs.close(tmp_path) == []
