"""A query's file, read in a process of its own, is the cached image's twin; refusals come through."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from silo_app.errors import ImageUnsupported, NotReady
from silo_app.imaging import pool
from silo_app.imaging.cache import as_cached
from silo_app.imaging.isolated import IsolatedReader, read_isolated
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.worker import Request
from tests.conftest import picture


def test_radiograph_is_what_the_cache_would_give(tmp_path, make_dicom):
    path = tmp_path / "query.dcm"
    path.write_bytes(make_dicom())
    np.testing.assert_array_equal(read_isolated(path), as_cached(read_radiograph(path)))


def test_refusal_names_reason_and_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("notes")
    with pytest.raises(ImageUnsupported) as caught:
        read_isolated(path)
    assert (caught.value.reason, caught.value.where) == ("not-dicom", str(path))


@pytest.fixture
def reader(tmp_path):
    made = IsolatedReader(tmp_path / "reading", at_once=1)
    yield made
    made.close()


def pids(reader):
    return [worker.process.pid for decoder in reader._idle for worker in decoder._pool._all]


def test_one_process_reads_one_file_after_another(reader, tmp_path, make_dicom):
    used = set()
    for seed in range(3):
        content = make_dicom(picture(seed=seed))
        (tmp_path / "query.dcm").write_bytes(content)
        expected = as_cached(read_radiograph(content))
        np.testing.assert_array_equal(reader.read(content)[0], expected)
        np.testing.assert_array_equal(reader.read(tmp_path / "query.dcm")[0], expected)
        used.update(pids(reader))
    assert len(used) == 1
    assert list((tmp_path / "reading").iterdir()) == []


def test_a_file_that_is_no_image_costs_nothing(reader, make_dicom):
    for _ in range(2):
        with pytest.raises(ImageUnsupported) as caught:
            reader.read(b"notes")
        assert (caught.value.reason, caught.value.where) == ("not-dicom", "")
    assert reader.read(make_dicom())[0].shape == (64, 48)


def test_a_process_that_ended_meanwhile_costs_nothing_and_one_that_hangs_its_file(reader, make_dicom, monkeypatch):
    reader.warm()
    content = make_dicom()
    assert reader.read(content)[0].shape == (64, 48)
    ended(reader)
    assert reader.read(content)[0].shape == (64, 48)
    (pid,) = pids(reader)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()  # as its own alarm does
    with pytest.raises(ImageUnsupported, match="crashed or took too long"):
        reader.read(content)
    assert reader.read(content)[0].shape == (64, 48)


def ended(reader):
    """End the process that is kept, as the system does that needs its memory."""
    (pid,) = pids(reader)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def refused(*_args, **_kwargs):
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_process_that_cannot_be_replaced_costs_one_file_and_the_next_starts_one(reader, make_dicom, monkeypatch):
    reader.warm()
    ended(reader)
    with monkeypatch.context() as patched:
        patched.setattr(pool, "_start", refused)
        for _ in range(2):
            with pytest.raises(NotReady, match="a decoder cannot be started: Resource temporarily"):
                reader.read(make_dicom())
    assert reader.read(make_dicom())[0].shape == (64, 48)


def test_a_file_that_ends_its_process_is_told_though_the_process_cannot_be_replaced(reader, make_dicom, monkeypatch):
    reader.read(make_dicom())
    (pid,) = pids(reader)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with monkeypatch.context() as patched:
        patched.setattr(pool, "_start", refused)
        with pytest.raises(ImageUnsupported, match="crashed or took too long"):
            reader.read(make_dicom())
    assert reader.read(make_dicom())[0].shape == (64, 48)


def test_a_process_whose_use_was_broken_off_is_not_used_again(reader, make_dicom, monkeypatch):
    reader.warm()
    (pid,) = pids(reader)
    with monkeypatch.context() as patched:
        patched.setattr(pool._Pool, "collect", refused)
        with pytest.raises(BlockingIOError):
            reader.read(make_dicom(picture(seed=1)))
    assert pids(reader) == []
    content = make_dicom(picture(seed=2))
    np.testing.assert_array_equal(reader.read(content)[0], as_cached(read_radiograph(content)))
    assert pids(reader) != [pid]


def test_where_the_system_allows_fewer_processes_those_read_all_files(tmp_path, make_dicom, monkeypatch):
    (tmp_path / "query.dcm").write_bytes(make_dicom())
    request = Request(path=str(tmp_path / "query.dcm"), cache=str(tmp_path), content_key="0" * 64, seconds=30)
    start, started = pool._start, []

    def one_only():
        if started:
            refused()
        started.append(start())
        return started[0]

    monkeypatch.setattr(pool, "_start", one_only)
    replies = list(pool.decode_all([request] * 5, workers=3))
    assert ["digest" in reply for reply in replies] == [True] * 5


def test_what_a_killed_reader_left_is_removed(tmp_path):
    left = tmp_path / "reading" / "tmpabc" / "ab"
    left.mkdir(parents=True)
    (left / "secret.npy").write_bytes(b"pixels")
    reader = IsolatedReader(tmp_path / "reading")
    assert list((tmp_path / "reading").iterdir()) == []
    assert (tmp_path / "reading").stat().st_mode & 0o777 == 0o700
    reader.close()


def test_a_process_may_wait_for_its_first_file(tmp_path, make_dicom, monkeypatch):
    """The alarm of its start does not ring later."""
    (tmp_path / "path").mkdir()
    shorter = "import signal\nring = signal.alarm\nsignal.alarm = lambda seconds: ring(min(seconds, 5))\n"
    (tmp_path / "path" / "sitecustomize.py").write_text(shorter)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    reader = IsolatedReader(tmp_path / "reading")
    reader.warm()
    (pid,) = pids(reader)
    time.sleep(6)
    assert reader.read(make_dicom())[0].shape == (64, 48)
    assert pids(reader) == [pid]
    reader.close()
