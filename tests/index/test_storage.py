"""A generation goes where silo.yaml says, is opened wherever it lies, and can be moved without embedding again."""

import numpy as np
import pytest

from silo_app import durable
from silo_app.cases import CaseId, EncoderVersion
from silo_app.config import IndexSettings, MilvusSettings, SiloConfig, SiloHome
from silo_app.errors import ConfigInvalid, IndexDamaged, NotReady
from silo_app.index import ivf_gallery, storage
from silo_app.index.build import leave_milvus, move_generation
from silo_app.index.generations import building, left_in_milvus, open_current, publish
from silo_app.index.known import generation_of
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


@pytest.mark.parametrize("step", ["write_rows", "digest_of", "write_text"])
def test_a_publication_that_fails_leaves_no_collection(tmp_path, monkeypatch, step):
    home = home_of(tmp_path, held_in="milvus", milvus=MILVUS)
    kept = put(home, unit(5)).collection

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if step == "write_text":
            patched.setattr(durable, "write_text", full)
        else:
            patched.setattr(f"silo_app.index.generations.{step}", full)
        for _ in range(3):
            with pytest.raises(NotReady, match="No space left"):
                put(home, unit(6))
    assert collections(home) == {kept}
    assert open_current(home.index, Storage.of(home)).info.generation == "000001"


def test_a_collection_that_is_filled_in_part_is_not_left(tmp_path, monkeypatch):
    home = home_of(tmp_path, held_in="milvus", milvus=MILVUS)
    kept = put(home, unit(5)).collection
    from pymilvus import MilvusClient, MilvusException

    def refused(*_arguments, **_named):
        raise MilvusException(message="quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(MilvusClient, "insert", refused)
        with pytest.raises(NotReady, match="Milvus refused"):
            put(home, unit(6))
    assert collections(home) == {kept}


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


def collections(home):
    return Storage.of(home).collections()


def test_a_move_back_leaves_nothing_in_milvus_once_it_is_taken(tmp_path):
    in_milvus, in_files = home_of(tmp_path, held_in="milvus", milvus=MILVUS), home_of(tmp_path, milvus=MILVUS)
    held = put(in_milvus, unit(5))
    leave_milvus(in_files)
    assert collections(in_files) == {held.collection}, "it is in use"
    assert left_in_milvus(in_files.index, Storage.of(in_files), held) == []
    moved = move_generation(in_files)
    assert collections(in_files) == {held.collection}, "an index process may still search there"
    assert left_in_milvus(in_files.index, Storage.of(in_files), moved) == [held.collection]
    leave_milvus(in_files)
    assert collections(in_files) == set()
    assert left_in_milvus(in_files.index, Storage.of(in_files), moved) == []
    assert [path.name for path in in_files.index.iterdir() if path.is_dir()] == ["000002"]


def test_what_is_left_in_milvus_is_not_lost_sight_of_without_its_server(tmp_path):
    in_milvus, in_files = home_of(tmp_path, held_in="milvus", milvus=MILVUS), home_of(tmp_path)
    held = put(in_milvus, unit(5))
    for _ in range(3):
        info = put(in_files, unit(5))
    assert left_in_milvus(in_files.index, Storage.of(in_files), info) == [held.collection]
    named_again = home_of(tmp_path, milvus=MILVUS)
    put(named_again, unit(5))
    assert collections(named_again) == set()
    assert open_current(in_files.index).info.generation == "000005"


def test_collections_in_use_or_to_fall_back_on_are_not_left_over(tmp_path):
    home = home_of(tmp_path, held_in="milvus", milvus=MILVUS)
    put(home, unit(5))
    info = put(home, unit(6))
    forgotten = write_milvus(MILVUS, tmp_path, "st-anna", unit(3))
    assert len(collections(home)) == 3
    assert left_in_milvus(home.index, Storage.of(home), info) == [forgotten]


AWAY = MilvusSettings(uri="http://127.0.0.1:9", timeout_s=1.0)


def test_a_generation_is_published_although_milvus_is_away_for_tidying(tmp_path, caplog):
    assert put(home_of(tmp_path, milvus=AWAY), unit(5)).generation == "000001"
    assert open_current(home_of(tmp_path).index).info.generation == "000001"
    assert "Milvus refused, or did not answer" in caplog.text


def test_nothing_is_embedded_again_while_milvus_is_away(make_silo):
    named = make_silo()
    home = home_of(named.kit, held_in="milvus", milvus=MILVUS)
    home.root.mkdir(exist_ok=True)
    put(home, unit(5))
    away = home_of(home.kit, milvus=AWAY)
    with pytest.raises(NotReady, match="did not answer") as raised:
        generation_of(away, ENCODER, must_answer=True)
    assert "take index.milvus out of silo.yaml" in raised.value.remedy
    assert generation_of(away, ENCODER) is None
    assert generation_of(away, EncoderVersion("cd" * 16), must_answer=True) is None
    assert generation_of(home_of(home.kit), ENCODER, must_answer=True) is None, "the server is gone for good"


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
