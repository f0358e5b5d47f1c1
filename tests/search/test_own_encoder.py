"""What asks takes the silo's look out of its vectors exactly as the silo's index did."""

import numpy as np
import pytest

from silo_app.cases import Finding
from silo_app.encoder import checkpoint
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.looks import Look, look_of
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.places import similarity_map
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import NotReady
from silo_app.index.generations import building, publish
from silo_app.index.looks import KeptLook
from silo_app.search.own_encoder import asking_version, own_encoder

SIDE = 8


def keep(home, looks, seed=1):
    fields = {"backbone": "densenet-small", "input_size": 32, "embedding_dim": SIDE, "findings": (Finding.EDEMA,)}
    spec = EncoderSpec(looks=looks, **fields)
    checkpoint.set_current(home.models, checkpoint.save(home.models, spec, to_vector(build(spec, seed)), {}))
    return load_encoder(home.models)


def a_look():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(100, SIDE)) + 1
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labels = rng.random((100, 1)) < 0.5
    look = look_of(unit, labels.astype(np.float32), labels | True, rng.normal(size=(1, SIDE)).astype(np.float32))
    return Look.read(look.content())


def images(count=2):
    return list(np.random.default_rng(3).random((count, 40, 30)).astype(np.float32))


@pytest.fixture
def home(make_silo):
    made = make_silo()
    made.root.mkdir()
    return made


def index(home, encoder, look):
    with building(home.index):
        vectors = look.removed(encoder.radiographs(images()))
        names = {"cases": ["0" * 32, "1" * 32], "digests": ["0" * 64, "1" * 64]}
        publish(home.index, vectors=vectors, encoder_version=encoder.version, look=KeptLook(look, 40), **names)
    return vectors


def test_a_query_lies_where_the_index_has_the_same_image(home):
    vectors = index(home, keep(home, "removed"), a_look())
    assert np.allclose(own_encoder(home).radiographs(images()), vectors, atol=1e-5)


def test_an_encoder_that_keeps_looks_needs_no_index(home):
    plain = keep(home, "kept")
    assert np.array_equal(own_encoder(home).radiographs(images()), plain.radiographs(images()))


def test_without_an_index_nothing_can_be_asked(home):
    keep(home, "removed")
    with pytest.raises(NotReady, match="how this silo's images look"):
        own_encoder(home)


def test_the_places_of_an_image_still_make_the_whole_similarity(home):
    index(home, keep(home, "removed"), a_look())
    encoder, (first, second) = own_encoder(home), images()
    one, other = encoder.radiographs([first, second])
    assert similarity_map(encoder, first, other).mean() == pytest.approx(float(one @ other), abs=1e-4)


@pytest.mark.parametrize("looks", ["kept", "removed"])
def test_after_a_training_queries_go_on_with_the_encoder_of_the_index_until_it_is_built(home, looks):
    older = keep(home, "removed")
    vectors = index(home, older, a_look())
    newer = keep(home, looks, seed=2)
    assert asking_version(home) == older.version
    assert np.allclose(own_encoder(home).radiographs(images()), vectors, atol=1e-5)
    index(home, newer, a_look())
    assert own_encoder(home).version == newer.version
    assert own_encoder(home, older.version).version == older.version  # the look of the generation before is still there


def test_a_damaged_manifest_leaves_the_generation_before(home):
    older = keep(home, "removed")
    index(home, older, a_look())
    index(home, keep(home, "removed", seed=2), a_look())
    manifest = home.index / "000002" / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")
    assert own_encoder(home).version == older.version
