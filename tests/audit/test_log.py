"""The audit log: written before an answer leaves and on disk soon, private, and any change to it shows."""

import json
import multiprocessing
import os
import stat
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.audit.chain import START, line_of, verify_lines
from silo_app.audit.log import AuditLog, verify
from silo_app.errors import AuditDamaged


@pytest.fixture
def path(tmp_path):
    return tmp_path / "silo" / "audit.jsonl"


def fill(path, count=5):
    log = AuditLog(path)
    for number in range(count):
        log.append("answer", {"number": number, "asker": "north"})
    log.close()


def test_records_are_lines_in_a_chain(path):
    fill(path)
    chain = verify(path)
    assert (chain.lines, chain.previous) == (5, START)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["number"] for record in records] == [0, 1, 2, 3, 4]
    assert records[-1]["digest"] == chain.digest
    assert {"at", "event", "asker"} <= set(records[0])


def test_the_log_is_private(path):
    fill(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_later_process_continues_the_chain(path):
    fill(path)
    fill(path)
    assert verify(path).lines == 10


TAMPERING = {
    "a value": (lambda lines: [*lines[:2], lines[2].replace(b'"north"', b'"south"'), *lines[3:]], 3, "it was changed"),
    "a line taken out": (lambda lines: lines[:2] + lines[3:], 3, "does not follow"),
    "the first line taken out": (lambda lines: lines[1:], 1, "does not follow"),
    "two lines swapped": (lambda lines: [lines[1], lines[0], *lines[2:]], 1, "does not follow"),
    "a line put in": (lambda lines: [lines[0], lines[0], *lines[1:]], 2, "does not follow"),
    "no JSON": (lambda lines: [lines[0], b"hello\n", *lines[1:]], 2, "not a whole line"),
    "half a line": (lambda lines: [*lines[:-1], lines[-1][:20]], 5, "not a whole line"),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_names_the_line(kind, path):
    change, number, problem = TAMPERING[kind]
    fill(path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(AuditDamaged, match=problem) as raised:
        verify(path, previous=START)
    assert raised.value.where == f"audit.jsonl:{number}"


def test_a_rotated_log_is_continued_in_the_new_file(path):
    log = AuditLog(path)
    log.append("answer", {"number": 1})
    old = path.with_suffix(".1")
    path.rename(old)
    log.append("answer", {"number": 2})
    log.close()
    first = verify(old)
    assert verify(path, previous=first.digest).lines == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_line_of_a_killed_process_is_cut_off(path):
    fill(path, 2)
    with path.open("ab") as file:
        file.write(b'{"at":"2026-01-01T00:00:00.000+00:00","ev')
    fill(path, 2)
    assert verify(path).lines == 4


def test_two_logs_of_one_file_take_turns(path):
    first, second = AuditLog(path), AuditLog(path)
    for number in range(6):
        (first, second)[number % 2].append("answer", {"number": number})
    assert verify(path).lines == 6


def test_threads_share_a_log(path):
    log = AuditLog(path)
    threads = [threading.Thread(target=lambda: [log.append("answer", {"n": n}) for n in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(path).lines == 160


def test_processes_share_a_log(path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fill, args=(path, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert verify(path).lines == 60


@pytest.fixture
def synced(monkeypatch):
    """Note the size that the file has at each fsync; the first one may be made to fail."""
    sizes, failures = [], []
    real = os.fsync

    def fsync(descriptor):
        if failures:
            raise failures.pop()
        real(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr("silo_app.audit.log.os.fsync", fsync)
    return sizes, failures


def eventually(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_record_is_on_disk_before_append_returns(path, synced):
    log = AuditLog(path)
    log.append("answer", {"number": 1})
    assert synced[0][-1] == path.stat().st_size > 0


def test_with_a_time_given_it_is_on_disk_within_it(path, synced):
    log = AuditLog(path, sync_within_s=0.2)
    for number in range(50):
        log.append("answer", {"number": number})
    assert verify(path).lines == 50  # written, and so not lost with the process
    eventually(lambda: synced[0] and synced[0][-1] == path.stat().st_size)
    assert len(synced[0]) < 50
    log.append("answer", {"number": 50})
    eventually(lambda: synced[0][-1] == path.stat().st_size)
    log.close()


def test_closing_syncs_what_is_waiting(path, synced):
    log = AuditLog(path, sync_within_s=60)
    log.append("answer", {"number": 1})
    log.close()
    assert synced[0][-1] == path.stat().st_size


def test_after_a_disk_that_failed_nothing_more_is_taken_until_somebody_heard(path, synced):
    log = AuditLog(path, sync_within_s=0.01)
    log.append("answer", {"number": 0})
    log.sync()
    synced[1].append(OSError(5, "Input/output error"))
    log.append("answer", {"number": 1})
    eventually(lambda: not synced[1])

    def refused():
        try:
            log.append("answer", {"number": 2})
        except OSError:
            return True
        return False

    eventually(refused)
    log.append("answer", {"number": 3})
    log.close()
    verify(path)


values = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=20))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "ü"]), values), min_size=1, max_size=8), st.data())
def test_any_changed_byte_shows(records, data):
    lines, previous = [], START
    for record in records:
        line, previous = line_of(record, previous)
        lines.append(line.encode())
    assert verify_lines(lines, previous=START).digest == previous
    row = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[row]) - 1))
    changed = bytearray(lines[row])
    changed[column] ^= data.draw(st.sampled_from([0x01, 0x10]))
    content = _loaded(bytes(changed))
    if content == _loaded(lines[row]):
        return  # the same record in other words
    with pytest.raises(AuditDamaged):
        verify_lines([*lines[:row], bytes(changed), *lines[row + 1 :]], previous=START)


def _loaded(line):
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None


def test_a_line_longer_than_usual_is_continued(path):
    one, other = AuditLog(path), AuditLog(path)
    one.append("answer", {"released": [f"{n:032x}" for n in range(1000)]})
    other.append("answer", {"k": 10})
    one.append("answer", {"k": 11})
    assert verify(path).lines == 3


def test_a_full_disk_leaves_no_part_of_what_was_appended_together(path, monkeypatch):
    log = AuditLog(path)
    log.append("answer", {"k": 1})
    write = os.write
    monkeypatch.setattr("os.write", lambda descriptor, content: write(descriptor, content[: len(content) - 20]))
    with pytest.raises(OSError, match="bytes were written"):
        log.append_all([("answer", {"k": 2}), ("answer", {"k": 3})])
    monkeypatch.undo()
    log.append("answer", {"k": 4})
    assert verify(path).lines == 2
