"""Real processes: only ours are ever signalled, and all of ours end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from provisioning import parts, processes
from provisioning.supervisor import Record, State

BEGIN = "import signal, subprocess, sys, time; print('begun', flush=True); "


def python(program: str) -> list[str]:
    return [sys.executable, "-c", BEGIN + program]


SLEEP = python("time.sleep(60)")
DEAF = [sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN); " + SLEEP[2]]
PARENT = python(
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); time.sleep(60)"
)
ONCE = python("raise SystemExit(3)")


class Bench:
    """A folder in which processes are started; everything is ended afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / ".run"

    def start(self, command, *, name="one", restart=False, before=None) -> Record:
        record = processes.start(
            name,
            command,
            folder=self.folder,
            log=self.folder / "log" / f"{name}.txt",
            run=self.run,
            environment=parts.environment(1),
            restart=restart,
            before=before,
        )
        self.wait(lambda: "begun" in processes.tail(Path(record.log), 10))
        self.wait(lambda: self.record(name).process or self.record(name).ended)
        return self.record(name)

    def record(self, name="one") -> Record:
        found = processes.read_record(self.run / f"{name}.json")
        assert found is not None
        return found

    @staticmethod
    def wait(condition, seconds=15.0) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "did not happen in time"
            time.sleep(0.02)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    processes.end([made.record(file.stem) for file in made.run.glob("*.json")], grace=0.2)


def pids(record) -> set[int]:
    return {process.pid for process in processes.living([record])}


def test_a_process_runs_apart_from_us_and_ends_when_asked(bench):
    record = bench.start(SLEEP)
    assert pids(record) == {record.supervisor.pid, record.process.pid}
    assert os.getsid(record.process.pid) != os.getsid(0)
    assert processes.end([record], grace=5) == []
    assert pids(record) == set()


def test_one_that_does_not_listen_is_killed(bench):
    record = bench.start(DEAF)
    assert record.process.pid in processes.end([record], grace=0.3)
    assert pids(record) == set()


def test_children_in_sessions_of_their_own_end_too(bench):
    record = bench.start(PARENT)
    bench.wait(lambda: len(pids(record)) == 3)
    processes.end([record], grace=5)
    assert pids(record) == set()


def test_orphans_are_found_after_supervisor_and_parent_were_killed(bench):
    record = bench.start(PARENT)
    bench.wait(lambda: len(pids(record)) == 3)
    (orphan,) = pids(record) - {record.supervisor.pid, record.process.pid}
    os.kill(record.supervisor.pid, signal.SIGKILL)
    os.kill(record.process.pid, signal.SIGKILL)
    bench.wait(lambda: pids(record) == {orphan})
    processes.end([record], grace=5)
    assert pids(record) == set()


def test_a_killed_process_comes_back_if_that_was_ordered(bench):
    first = bench.start(SLEEP, restart=True)
    os.kill(first.process.pid, signal.SIGKILL)
    bench.wait(lambda: bench.record().process not in (None, first.process))
    second = bench.record()
    assert (second.restarts, second.last_exit, second.ended) == (1, -signal.SIGKILL, False)
    assert processes.is_alive(second.process)
    assert not processes.is_alive(first.process)


def test_without_that_order_its_end_is_written_down(bench):
    record = bench.start(ONCE)
    bench.wait(lambda: bench.record().ended)
    assert (bench.record().last_exit, bench.record().process) == (3, None)
    bench.wait(lambda: not processes.is_alive(record.supervisor))


def test_nvflares_request_for_a_stop_is_the_end(bench):
    record = bench.start(SLEEP, restart=True)
    (bench.folder / "shutdown.fl").touch()
    os.kill(record.process.pid, signal.SIGTERM)
    bench.wait(lambda: bench.record().ended)
    assert bench.record().restarts == 0


def test_a_command_runs_before_every_start(bench):
    note = bench.folder / "before"
    first = bench.start(SLEEP, restart=True, before=[sys.executable, "-c", f"open({str(note)!r}, 'a').write('x')"])
    os.kill(first.process.pid, signal.SIGKILL)
    bench.wait(lambda: bench.record().restarts == 1 and bench.record().process)
    assert note.read_text() == "xx"


def test_a_process_that_only_has_our_number_is_left_alone(bench):
    record = bench.start(ONCE)
    bench.wait(lambda: not processes.is_alive(record.supervisor))
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:
        began = psutil.Process(stranger.pid).create_time()
        reused = replace(record, process=State(stranger.pid, began - 3600))
        assert processes.end([reused], grace=0.2) == []
        assert stranger.poll() is None
        stranger.kill()


def test_records_and_logs_are_private(bench):
    record = bench.start(SLEEP)
    for file in (bench.run / "one.json", Path(record.log)):
        assert file.stat().st_mode & 0o077 == 0


def test_the_log_of_the_last_time_is_kept_beside(bench):
    bench.start(ONCE)
    bench.wait(lambda: bench.record().ended)
    bench.start(ONCE)
    assert (bench.folder / "log" / "one.1.txt").read_text() == "begun\n"


def test_a_record_reads_as_it_was_written(tmp_path):
    record = Record(name="one", token="t", log="l", supervisor=State(1, 2.0), process=State(3, 4.0), last_exit=-9)
    (tmp_path / "one.json").write_text(json.dumps(asdict(record)))
    assert processes.read_record(tmp_path / "one.json") == record
    assert processes.read_record(tmp_path / "two.json") is None


def test_a_tail_is_the_last_lines(tmp_path):
    log = tmp_path / "log.txt"
    assert processes.tail(log, 3) == ""
    log.write_text("\n".join(map(str, range(30000))))
    assert processes.tail(log, 2) == "29998\n29999"
