"""From the ingest of an image to its hit in the running index process: by a real encoder, in a real build, by itself."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from silo_app.cases import Finding
from silo_app.cli.index import _embedder
from silo_app.encoder import checkpoint
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.radiograph import Radiograph
from silo_app.index.build import build_generation
from silo_app.index.generations import is_building, open_current
from silo_app.search.envelope import open_reply, seal
from silo_app.search.messages import Refusal, SiloAnswer
from silo_app.search.server import IndexProcess

SPEC = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=16, findings=(Finding.PNEUMONIA,))


def ingested(silo, seed, patients):
    """Bring new images into catalogue and cache, as an ingest does; return their digests."""
    rng, before = np.random.default_rng(seed), set(silo.vectors)
    silo.stock(seed, patients)
    cache, new = RadiographCache(silo.home.cache), sorted(set(silo.vectors) - before)
    for digest in new:
        cache.write(digest, Radiograph(rng.uniform(0, 1, (40, 32)).astype(np.float32)))
    return new


@pytest.fixture
def silo(stocked):
    """A silo of 20 cases with an encoder and an index of it."""
    made = stocked("south", cases=0)
    ingested(made, 1, 20)
    models = made.home.models
    checkpoint.set_current(models, checkpoint.save(models, SPEC, to_vector(build(SPEC, 1)), {}))
    encoder = load_encoder(models)
    build_generation(made.home, encoder.version, _embedder(made.home, encoder), head=encoder.head)
    return made


@pytest.mark.timeout(180)
def test_a_new_image_is_found_within_a_minute_of_its_ingest(stocked, silo, request_of):
    encoder = load_encoder(silo.home.models)
    process = IndexProcess(silo.home)
    process.start()
    try:
        (digest,) = ingested(silo, 2, 1)
        begun = time.monotonic()
        north = stocked.federation.identity("north")
        vector = encoder.radiographs([RadiographCache(silo.home.cache).read(digest)])[0]

        def answered():
            frame = seal(north, request_of(vector, encoder_version=encoder.version, k=1))
            return open_reply(north, "south", frame, process.answer_frame(frame), SiloAnswer, Refusal)

        while (reply := answered()).generation == "000001":
            assert time.monotonic() - begun < 60
            time.sleep(0.5)
        assert (reply.generation, reply.indexed) == ("000002", 21)
        assert reply.hits[0].score > 0.9
    finally:
        process.close()
    assert "keeping-up" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.timeout(180)
def test_a_build_ends_with_the_command_and_leaves_the_index_as_it_was(silo):
    command = [sys.executable, "-m", "silo_app.cli.main", "serve", "--silo", str(silo.home.kit)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as serving:
        while not silo.home.index_socket.exists():
            time.sleep(0.05)
        ingested(silo, 2, 1)
        while not (builds := psutil.Process(serving.pid).children()):
            time.sleep(0.05)
        while builds[0].nice() != 19:
            time.sleep(0.05)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=20) == 0
    assert not builds[0].is_running()
    assert open_current(silo.home.index).info.generation == "000001"
    assert not is_building(silo.home.index)
