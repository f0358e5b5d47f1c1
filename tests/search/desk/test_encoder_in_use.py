"""The encoder that is kept is the one in use, with the look that the index learned last."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from silo_app.encoder import checkpoint
from silo_app.encoder.looks import Look, look_of
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import NotReady
from silo_app.index.generations import building, publish
from silo_app.index.looks import KeptLook
from silo_app.search.desk import encoder_in_use
from silo_app.search.desk.encoder_in_use import EncoderInUse
from silo_app.search.own_encoder import own_encoder

SIDE = 8


@pytest.fixture
def home(make_silo):
    made = make_silo()
    made.root.mkdir()
    return made


@pytest.fixture
def loads(monkeypatch):
    """Count how often an encoder is loaded."""
    counted = []

    def load(home, version):
        counted.append(version)
        return own_encoder(home, version)

    monkeypatch.setattr(encoder_in_use, "own_encoder", load)
    return counted


def keep(home, seed, looks="kept"):
    spec = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=SIDE, looks=looks)
    version = checkpoint.save(home.models, spec, to_vector(build(spec, seed)), {})
    checkpoint.set_current(home.models, version)
    return version


def publish_look(home, version, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(100, SIDE)) + 1
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labels = rng.random((100, 14)) < 0.5
    found = look_of(unit, labels.astype(np.float32), labels | True, rng.normal(size=(14, SIDE)).astype(np.float32))
    with building(home.index):
        names = {"cases": ["0" * 32, "1" * 32], "digests": ["0" * 64, "1" * 64]}
        publish(
            home.index, vectors=unit[:2], encoder_version=version, look=KeptLook(Look.read(found.content()), 40), **names
        )


def images():
    return list(np.random.default_rng(3).random((2, 40, 30)).astype(np.float32))


def test_it_is_loaded_once_for_all_and_again_when_another_is_in_use(home, loads):
    first, encoder = keep(home, 1), EncoderInUse(home)
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda _: encoder.get(home), range(8)))
    assert {each.version for each in held} == {first}
    assert encoder.get(home, first) is held[0]
    assert loads == [first]
    second = keep(home, 2)
    encoder.refresh()
    assert (encoder.version, encoder.state, loads) == (second, "ready", [first, second])
    assert encoder.get(home, first).version == first  # for a search that began before
    assert encoder.get(home).version == second
    assert loads == [first, second, first]


def test_a_new_look_is_taken_without_loading_the_network_again(home, loads):
    version, encoder = keep(home, 1, looks="removed"), EncoderInUse(home)
    publish_look(home, version, 1)
    before = encoder.get(home).radiographs(images())
    publish_look(home, version, 2)
    after = encoder.get(home).radiographs(images())
    assert np.array_equal(after, own_encoder(home).radiographs(images()))
    assert not np.allclose(before, after)
    assert loads == [version]


def test_what_fails_is_not_tried_every_second_but_by_every_search(home, loads, caplog):
    version, encoder = keep(home, 1, looks="removed"), EncoderInUse(home)
    for _ in range(3):
        encoder.refresh()
    assert (encoder.state, loads) == ("missing", [version])
    assert caplog.text.count("the encoder cannot be loaded: not-ready") == 1
    with pytest.raises(NotReady, match="how this silo's images look"):
        encoder.get(home)
    publish_look(home, version, 1)
    encoder.refresh()
    assert encoder.state == "ready"


def test_while_it_is_loaded_it_says_so(home, monkeypatch):
    keep(home, 1)
    begun, go_on = threading.Event(), threading.Event()

    def load(*asked):
        begun.set()
        assert go_on.wait(20)
        return own_encoder(*asked)

    monkeypatch.setattr(encoder_in_use, "own_encoder", load)
    encoder = EncoderInUse(home)
    assert encoder.state == "loading"
    thread = threading.Thread(target=encoder.refresh)
    thread.start()
    assert begun.wait(20)
    assert (encoder.state, encoder.version) == ("loading", None)
    go_on.set()
    thread.join()
    assert encoder.state == "ready"
