"""Files in memory: written by path, read by descriptor, and gone with the block; on a disk only where there is no memfd."""

import os
import stat
from pathlib import Path

import pytest

from silo_app.memory_file import content_of, memory_file


@pytest.fixture(params=["in memory", "on a disk"])
def where(request, monkeypatch, tmp_path):
    if request.param == "on a disk":
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
    return request.param


def test_it_is_written_by_path_and_read_by_descriptor(where):
    with memory_file("test") as (descriptor, path):
        assert content_of(descriptor) == b""
        Path(path).write_bytes(b"hello")
        assert content_of(descriptor) == b"hello"
        os.pwrite(descriptor, b"J", 0)
        assert Path(path).read_bytes() == b"Jello"
        assert stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077 == 0 or where == "in memory"


def test_nothing_is_left_however_the_block_ends(where, tmp_path):
    with pytest.raises(RuntimeError), memory_file("test") as (descriptor, path):
        Path(path).write_bytes(b"hello")
        raise RuntimeError
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    assert not list(tmp_path.iterdir()), where
