"""A Milvus server that hangs costs a call no more time than silo.yaml says; one that was started again is searched again."""

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


class Server:
    """A Milvus server of its own."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.settings = MilvusSettings(uri=f"http://127.0.0.1:{self.port}", timeout_s=2.0)
        self.start()

    def start(self):
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self.folder / "data")]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
        )
        wait_for(self.settings, self.folder)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    started = Server(tmp_path)
    yield started
    started.kill()


def wait_for(settings, kit):
    end = time.monotonic() + 60
    while True:
        try:
            return collections_of(settings, kit, SILO)
        except NotReady:
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.fixture
def vectors():
    rows = np.random.default_rng(0).standard_normal((VIEWS, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def cases():
    return np.random.default_rng(1).integers(0, 256, (VIEWS, 16), np.uint8)


@pytest.mark.timeout(180)
def test_no_call_waits_longer_than_it_may(server, tmp_path, vectors, cases):
    settings = server.settings
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
    os.kill(server.process.pid, signal.SIGSTOP)
    for call in calls:
        begun = time.monotonic()
        with pytest.raises(NotReady, match="did not answer"):
            call()
        assert time.monotonic() - begun < 10 * settings.timeout_s
    os.kill(server.process.pid, signal.SIGCONT)
    assert gallery.search(vectors[0], 5) == before


@pytest.mark.timeout(180)
@pytest.mark.parametrize("first", ["search", "vectors"])
def test_a_gallery_that_is_open_survives_its_server(server, tmp_path, vectors, cases, first):
    collection = write_milvus(server.settings, tmp_path, SILO, vectors)
    gallery = MilvusGallery.open(server.settings, tmp_path, collection, 8, cases)
    before, stored = gallery.search(vectors[0], 5), gallery.vectors(np.arange(VIEWS))
    server.kill()
    with pytest.raises(NotReady, match="did not answer"):
        gallery.search(vectors[0], 5)
    server.start()
    if first == "search":
        assert gallery.search(vectors[0], 5) == before
    assert np.array_equal(gallery.vectors(np.arange(VIEWS)), stored)
    assert gallery.search(vectors[0], 5) == before
