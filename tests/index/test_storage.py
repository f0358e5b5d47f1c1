"""A generation goes where silo.yaml says, is opened wherever it lies, and can be moved without embedding again."""

import numpy as np
import pytest

from silo_app import durable
from silo_app.cases import CaseId, EncoderVersion
from silo_app.config import IndexSettings, MilvusSettings, SiloConfig, SiloHome
from silo_app.errors import ConfigInvalid, IndexDamaged, NotReady
from silo_app.index import ivf_gallery, storage
from silo_app.index.build import move_generation
from silo_app.index.generations import building, open_current, publish
from silo_app.index.milvus_gallery import MilvusGallery, drop_others, write_milvus
from silo_app.index.storage import Storage

ENCODER = EncoderVersion("ab" * 16)
MILVUS = MilvusSettings(uri="milvus.db")


def unit(count, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((count, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def home_of(kit, **index):
    return SiloHome(kit=kit, config=SiloConfig(name="st-anna", index=IndexSettings(**index)))


def put(home, vectors):
    rng = np.random.default_rng(len(vectors))
    with building(home.index):
        return publish(
            home.index,
            vectors=vectors,
            cases=[CaseId(rng.bytes(16).hex()) for _ in vectors],
            digests=[rng.bytes(32).hex() for _ in vectors],
            encoder_version=ENCODER,
            storage=Storage.of(home),
        )


def hits(home, query, k=5):
    gallery = open_current(home.index, Storage.of(home)).gallery
    return [(hit.case, hit.score) for hit in gallery.search(query, k)]


@pytest.mark.parametrize(
    ("settings", "views", "kind"),
    [
        ({}, 10, "exact"),
        ({"exact_up_to": 0}, ivf_gallery.MIN_VIEWS, "exact"),
        ({"exact_up_to": 0}, ivf_gallery.MIN_VIEWS + 1, "ivf"),
        ({"exact_up_to": 20_000}, 20_000, "exact"),
        ({"exact_up_to": 20_000}, 20_001, "ivf"),
        ({"held_in": "milvus", "milvus": MILVUS}, 10, "milvus"),
        ({"milvus": MILVUS}, 10, "exact"),
    ],
)
def test_the_settings_choose(settings, views, kind):
    assert Storage(IndexSettings(**settings)).kind_for(views) == kind


def test_an_index_moves_to_milvus_and_back_with_the_same_answers(tmp_path):
    vectors = unit(60)
    in_files = home_of(tmp_path, milvus=MILVUS)
    in_milvus = home_of(tmp_path, held_in="milvus", milvus=MILVUS)
    put(in_files, vectors)
    before = hits(in_files, vectors[3])
    moved = move_generation(in_milvus)
    assert (moved.kind, moved.generation, moved.views) == ("milvus", "000002", 60)
    assert hits(in_milvus, vectors[3]) == before
    assert hits(in_files, vectors[3]) == before  # the generation is opened where it lies
    back = move_generation(in_files)
    assert (back.kind, back.generation) == ("exact", "000003")
    assert hits(in_files, vectors[3]) == before


def test_an_index_grows_into_lists(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MIN_VIEWS", 100)
    vectors = unit(400)
    put(home_of(tmp_path), vectors)
    before = hits(home_of(tmp_path), vectors[3], 1)
    assert move_generation(home_of(tmp_path, exact_up_to=0)).kind == "ivf"
    assert hits(home_of(tmp_path), vectors[3], 1) == before


def test_a_damaged_file_of_lists_falls_back_to_the_generation_before(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MIN_VIEWS", 100)
    home = home_of(tmp_path, exact_up_to=0)
    put(home, unit(400))
    put(home, unit(401))
    file = home.index / "000002" / "vectors.npy"
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1])
    opened = open_current(home.index, Storage.of(home))
    assert (opened.info.generation, opened.skipped) == ("000001", ("000002",))


def test_collections_that_no_generation_names_are_dropped(tmp_path):
    home = home_of(tmp_path, held_in="milvus", milvus=MILVUS)
    left = write_milvus(MILVUS, tmp_path, "st-anna", unit(3))
    other = write_milvus(MILVUS, tmp_path, "st-anna-2", unit(3))
    kept = put(home, unit(5)).collection
    cases = np.zeros((3, 16), np.uint8)
    with pytest.raises(IndexDamaged, match="Milvus does not have it"):
        MilvusGallery.open(MILVUS, tmp_path, left, 8, cases)
    assert MilvusGallery.open(MILVUS, tmp_path, other, 8, cases).views == 3
    assert MilvusGallery.open(MILVUS, tmp_path, kept, 8, np.zeros((5, 16), np.uint8)).views == 5
    drop_others(MILVUS, tmp_path, "st-anna-2", set())
    with pytest.raises(IndexDamaged):
        MilvusGallery.open(MILVUS, tmp_path, other, 8, cases)


def test_a_collection_of_other_rows_is_damaged(tmp_path):
    name = write_milvus(MILVUS, tmp_path, "st-anna", unit(3))
    with pytest.raises(IndexDamaged, match="it has 3 vectors for 2 views"):
        MilvusGallery.open(MILVUS, tmp_path, name, 8, np.zeros((2, 16), np.uint8))


def test_a_generation_in_milvus_needs_its_server_named(tmp_path):
    put(home_of(tmp_path, held_in="milvus", milvus=MILVUS), unit(5))
    with pytest.raises(NotReady, match="names no server"):
        open_current(home_of(tmp_path).index, Storage.of(home_of(tmp_path)))


def test_a_server_that_does_not_answer_leaves_the_old_generation(tmp_path):
    put(home_of(tmp_path), unit(5))
    nowhere = MilvusSettings(uri="http://127.0.0.1:9", timeout_s=1.0)
    with pytest.raises(NotReady, match="Milvus refused, or did not answer"):
        move_generation(home_of(tmp_path, held_in="milvus", milvus=nowhere))
    assert open_current(home_of(tmp_path).index).info.generation == "000001"


def test_a_token_that_others_may_read_is_refused(tmp_path):
    (tmp_path / "token").write_text("user:password")
    (tmp_path / "token").chmod(0o644)
    settings = MilvusSettings(uri="milvus.db", token_file="token")
    with pytest.raises(ConfigInvalid, match="other accounts"):
        write_milvus(settings, tmp_path, "st-anna", unit(3))
    (tmp_path / "token").chmod(durable.PRIVATE)
    assert write_milvus(settings, tmp_path, "st-anna", unit(3)).startswith("siloscope_st_anna_")


def test_milvus_without_a_server_is_refused_with_the_configuration():
    with pytest.raises(ValueError, match="no server is named"):
        IndexSettings(held_in="milvus")
