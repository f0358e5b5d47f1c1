"""A Milvus server that hangs, as one that is paused or swapped out does, costs a call no more time than silo.yaml says."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from silo_app.config import MilvusSettings
from silo_app.errors import NotReady
from silo_app.index.milvus_gallery import MilvusGallery, collections_of, drop_others, write_milvus

SILO = "st-anna"
VIEWS = 50


@pytest.fixture
def server(tmp_path):
    """Settings of a server of its own, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(tmp_path / "data"), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    settings = MilvusSettings(uri=f"http://127.0.0.1:{port}", timeout_s=2.0)
    try:
        wait_for(settings, tmp_path)
        yield settings, process
    finally:
        process.kill()
        process.wait()


def wait_for(settings, kit):
    end = time.monotonic() + 60
    while True:
        try:
            return collections_of(settings, kit, SILO)
        except NotReady:
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.mark.timeout(180)
def test_no_call_waits_longer_than_it_may(server, tmp_path):
    settings, process = server
    random = np.random.default_rng(0)
    vectors = random.standard_normal((VIEWS, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cases = np.frombuffer(random.bytes(16 * VIEWS), np.uint8).reshape(VIEWS, 16)
    collection = write_milvus(settings, tmp_path, SILO, vectors)
    gallery = MilvusGallery.open(settings, tmp_path, collection, 8, cases)
    before = gallery.search(vectors[0], 5)
    calls = [
        lambda: gallery.search(vectors[0], 5),
        lambda: gallery.vectors(np.arange(3)),
        lambda: MilvusGallery.open(settings, tmp_path, collection, 8, cases),
        lambda: collections_of(settings, tmp_path, SILO),
        lambda: drop_others(settings, tmp_path, SILO, set()),
        lambda: write_milvus(settings, tmp_path, SILO, vectors),
    ]
    os.kill(process.pid, signal.SIGSTOP)
    for call in calls:
        begun = time.monotonic()
        with pytest.raises(NotReady, match="did not answer"):
            call()
        assert time.monotonic() - begun < 10 * settings.timeout_s
    os.kill(process.pid, signal.SIGCONT)
    assert gallery.search(vectors[0], 5) == before
