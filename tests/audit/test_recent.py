"""The newest records of an audit log: also of the files that it was rotated to, whatever happens to them meanwhile."""

import datetime as dt
import gzip
import json
import lzma
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.audit import recent
from silo_app.audit.log import AuditLog
from silo_app.audit.recent import newest_records


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def fill(path, numbers):
    log = AuditLog(path)
    for number in numbers:
        log.append("answer", {"number": number})
    log.close()


def numbers(path, since=0.0):
    return [record["number"] for record in newest_records(path, since)]


def test_the_newest_come_first_and_what_cannot_be_read_is_left_out(path):
    fill(path, range(5))
    with path.open("ab") as file:
        file.write(b"[1]\nhalf")
    assert numbers(path) == [4, 3, 2, 1, 0]
    assert numbers(path.with_name("none")) == []


def test_a_log_without_a_line_says_nothing(path):
    path.touch()
    assert numbers(path) == []


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=12), block=st.integers(1, 50), split=st.integers(0, 12))
def test_blocks_of_any_length_give_the_same_lines(tmp_path_factory, lengths, block, split):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    lines = [
        json.dumps({"at": f"9{number:02}", "number": number, "more": "x" * length}) for number, length in enumerate(lengths)
    ]
    path.with_name("audit.jsonl.1").write_text("".join(line + "\n" for line in lines[:split]))
    path.write_text("".join(line + "\n" for line in lines[split:]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "_BLOCK", block)
        found = [record["number"] for record in recent.newest_records(path, -1e9)]
    assert sorted(found) == [*range(len(lengths))]


@pytest.mark.parametrize("packed", ["", ".gz", ".xz"])
def test_files_that_it_was_rotated_to_are_read_too(path, packed):
    fill(path, range(3))
    content = path.read_bytes()
    path.unlink()
    rotated = path.with_name("audit.jsonl.1" + packed)
    rotated.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[packed](content))
    assert numbers(path) == [2, 1, 0]
    fill(path, [3, 4])
    assert numbers(path) == [4, 3, 2, 1, 0]


def test_one_that_is_being_packed_gives_what_it_holds(path):
    fill(path, range(300))
    packed = gzip.compress(path.read_bytes())
    path.with_name("audit.jsonl.1.gz").write_bytes(packed[: len(packed) // 2])
    path.unlink()
    found = numbers(path)
    assert 0 < len(found) < 300
    assert found == sorted(found, reverse=True)


def test_what_is_older_is_not_read(path):
    fill(path, [0, 1])
    time.sleep(0.01)
    since = time.time()
    time.sleep(0.01)
    fill(path, [2, 3])
    assert numbers(path, since) == [3, 2]
    old = path.with_name("audit.jsonl.1")
    old.write_bytes(path.read_bytes())  # as it is after a copy with its times
    os.utime(old, (since - 60, since - 60))
    assert numbers(path, since) == [3, 2]


def test_a_file_that_is_given_another_name_while_it_is_looked_for_is_not_left_out(path, monkeypatch):
    fill(path, range(3))
    opened = recent.opened

    def rotated(file):
        monkeypatch.setattr(recent, "opened", opened)
        path.rename(path.with_name("audit.jsonl.1"))
        return opened(file)

    monkeypatch.setattr(recent, "opened", rotated)
    assert numbers(path) == [2, 1, 0]


def test_a_file_that_cannot_be_read_keeps_nobody_waiting(path, monkeypatch):
    fill(path, range(3))

    def refused(_file):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recent, "opened", refused)
    assert numbers(path) == []


def test_a_time_is_compared_as_the_log_writes_it(path):
    fill(path, [0])
    (record,) = newest_records(path)
    written = dt.datetime.fromisoformat(record["at"]).timestamp()
    assert numbers(path, written) == [0]
    assert numbers(path, written + 0.0015) == []
