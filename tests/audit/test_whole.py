"""An audit log as a whole: whoever changes a line or takes a file away is seen, and who only rotates it is not."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo_app.audit.chain import START
from silo_app.audit.log import AuditLog
from silo_app.audit.whole import whole_log
from silo_app.errors import AuditDamaged


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def write(path, count=2, log=None):
    """Append with a log that is kept, or as a process that has just started does."""
    own = log or AuditLog(path)
    for number in range(count):
        own.append("answer" if number % 2 else "refusal", {"number": number})
    if log is None:
        own.close()


def rotate(path, number, pack=False):
    name = path.with_name(f"audit.jsonl.{number}")
    path.rename(name)
    if pack:
        packed = name.with_name(name.name + ".gz")
        packed.write_bytes(gzip.compress(name.read_bytes()))
        name.unlink()


def test_nothing_written_yet_is_whole(path):
    log = whole_log(path)
    assert (log.files, log.problems, log.digest, log.has_older) == ((), (), START, False)


@pytest.mark.parametrize("pack", [False, True])
def test_whoever_writes_after_a_rotation_continues_the_file_before(path, pack):
    for number in range(3):
        write(path)
        rotate(path, number, pack)
    write(path, 3)
    log = whole_log(path)
    ending = ".gz" if pack else ""
    assert [file.name for file in log.files] == [*(f"audit.jsonl.{n}{ending}" for n in range(3)), "audit.jsonl"]
    assert log.files[-1].events == {"answer": 1, "refusal": 2}
    assert (log.problems, log.anew, log.has_older) == ((), (), False)
    assert log.digest == json.loads(path.read_text().splitlines()[-1])["digest"]


def test_two_that_write_by_turns_while_it_is_rotated_leave_one_chain(path):
    first, second = AuditLog(path), AuditLog(path)
    write(path, 1, first)
    write(path, 1, second)
    rotate(path, 1)
    write(path, 1, first)  # whose last line was not the file's last
    write(path, 1, second)
    rotate(path, 2)
    write(path, 1, second)
    for log in (first, second):
        log.close()
    log = whole_log(path)
    assert [file.lines for file in log.files] == [2, 2, 1]
    assert (log.problems, log.anew) == ((), ())


@settings(max_examples=40, deadline=None)
@given(files=st.integers(2, 6), data=st.data())
def test_a_file_that_is_missing_between_others_is_told(tmp_path_factory, files, data):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    for number in range(files):
        write(path, data.draw(st.integers(1, 3)))
        rotate(path, number)
    write(path)
    gone = data.draw(st.integers(0, files - 1))
    path.with_name(f"audit.jsonl.{gone}").unlink()
    log = whole_log(path)
    if gone == 0:  # as any rotation removes old ones
        assert (log.problems, log.has_older) == ((), True)
    else:
        (problem,) = log.problems
        after = f"audit.jsonl.{gone + 1}" if gone + 1 < files else "audit.jsonl"
        assert problem.startswith(f"{after} continues a line that is in no file")


def test_the_end_of_a_file_that_was_cut_off_is_told(path):
    write(path, 4)
    rotate(path, 1)
    write(path)
    old = path.with_name("audit.jsonl.1")
    old.write_text("".join(old.read_text().splitlines(keepends=True)[:-1]))
    assert "in no file" in whole_log(path).problems[0]


def test_the_end_of_the_log_that_was_cut_off_is_told_by_a_digest_that_was_noted(path):
    write(path, 4)
    noted = whole_log(path).digest
    write(path, 1)
    assert whole_log(path, noted).files[0].lines == 5
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    assert whole_log(path).problems == ()
    with pytest.raises(AuditDamaged, match="no line has the digest"):
        whole_log(path, noted)


def test_a_copy_is_no_problem_and_another_line_in_its_place_is(path):
    write(path, 2)
    rotate(path, 1)
    path.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(path.with_name("audit.jsonl.1").read_bytes()))
    write(path, 2)
    log = whole_log(path)
    assert [file.names for file in log.files] == [("audit.jsonl.1", "audit.jsonl.1.gz"), ("audit.jsonl",)]
    assert log.problems == ()
    other = path.with_name("audit.jsonl.2")
    path.rename(other)
    write(path, 2)
    moved = path.rename(path.with_name("audit.jsonl.3"))
    moved_lines = moved.read_bytes()
    other.rename(path)
    moved.unlink()
    rotate(path, 2)
    path.with_name("audit.jsonl.3").write_bytes(moved_lines)
    path.with_name("audit.jsonl.4").write_bytes(path.with_name("audit.jsonl.2").read_bytes().splitlines(keepends=True)[0])
    assert any("continue the same line" in problem for problem in whole_log(path).problems)


def test_a_log_that_begins_anew_says_so(path):
    write(path)
    old = path.rename(path.parent.parent / "elsewhere")
    write(path)
    old.rename(path.with_name("audit.jsonl.1"))
    log = whole_log(path)
    assert (log.problems, log.anew) == ((), ("audit.jsonl",))
