"""Building a generation: every view of the catalogue, nothing twice, nothing of another encoder."""

import threading
import time
import zipfile

import numpy as np
import pytest

from silo_app.cases import EncoderVersion, PatientKey, Split
from silo_app.catalogue import Catalogue, FileRecord, ViewKeys, ViewRecord
from silo_app.config import IndexSettings, MilvusSettings
from silo_app.errors import EncoderMismatch, NotReady
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest
from silo_app.imaging.radiograph import Radiograph
from silo_app.index.build import build_generation, leave_milvus, move_generation
from silo_app.index.generations import building, in_use, open_current
from silo_app.index.storage import Storage

FIRST, SECOND = EncoderVersion("ab" * 16), EncoderVersion("cd" * 16)


@pytest.fixture
def home(make_silo):
    made = make_silo()
    made.root.mkdir()
    return made


def put(home, *digests):
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        for digest in digests:
            keys = ViewKeys(
                instance=digest,
                study=digest[0],
                study_uid=digest[0],
                accession="",
                patient=PatientKey("p"),
                patient_id="p",
            )
            writer.add_view(ViewRecord(digest=digest, keys=keys, split=Split.TRAIN))
            writer.record_file(FileRecord(source="s", path=digest, size=1, mtime_ns=1, recipe="r", digest=digest))


def cache(home, *digests):
    """Have images in the cache, as an ingest leaves them."""
    for digest in digests:
        RadiographCache(home.cache).write(digest, Radiograph(pixels=np.zeros((2, 2), np.float32)))


def drop(home, digest):
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        writer.forget_files("s", [digest])
        writer.drop_orphans()


def name(letter, number=0):
    return letter * 63 + str(number)


class Encoder:
    """Embeds a digest as a vector that depends on it alone, and remembers what it was asked."""

    def __init__(self, seed=0, dimension=8):
        self.seed, self.dimension, self.asked = seed, dimension, []

    def __call__(self, digests):
        self.asked += digests
        rows = [np.random.default_rng([self.seed, int(d[:8], 16), int(d[-1], 16)]) for d in digests]
        return np.stack([rng.standard_normal(self.dimension) for rng in rows]).astype(np.float32)


def with_index(home, **index):
    return home.model_copy(update={"config": home.config.model_copy(update={"index": IndexSettings(**index)})})


def stored(home):
    opened = open_current(home.index)
    vectors = opened.gallery.vectors(np.arange(opened.info.views))
    return {row.tobytes().hex(): vector for row, vector in zip(opened.digests, vectors, strict=True)}


def test_every_view_is_embedded_and_every_case_counted(home):
    put(home, name("a"), name("a", 1), name("b"))
    told = []
    report = build_generation(home, FIRST, Encoder(), lambda done, total: told.append((done, total)))
    assert (report.embedded, report.reused) == (3, 0)
    assert (report.info.views, report.info.cases, report.info.encoder_version) == (3, 2, FIRST)
    assert told[-1] == (3, 3)
    assert all(abs(np.linalg.norm(vector) - 1) < 1e-3 for vector in stored(home).values())


def test_a_hit_is_the_case_that_the_catalogue_names(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    with Catalogue.open(home.catalogue) as catalogue:
        for digest, vector in stored(home).items():
            hit = open_current(home.index).gallery.search(vector, 1)[0]
            assert hit.case == catalogue.case_of_digest(digest)


def test_a_build_waits_for_milvus_rather_than_embed_everything_again(home):
    put(home, name("a"))
    in_milvus = with_index(home, held_in="milvus", milvus=MilvusSettings(uri="milvus.db"))
    build_generation(in_milvus, FIRST, Encoder())
    away, encoder = MilvusSettings(uri="http://127.0.0.1:9", timeout_s=1.0), Encoder()
    with pytest.raises(NotReady, match="did not answer"):
        build_generation(with_index(home, milvus=away), FIRST, encoder)
    assert encoder.asked == []
    assert build_generation(with_index(home), FIRST, encoder).embedded == 1


def test_what_is_unchanged_is_not_embedded_again(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    before = stored(home)
    put(home, name("c"))
    drop(home, name("b"))
    encoder = Encoder()
    report = build_generation(home, FIRST, encoder)
    assert encoder.asked == [name("c")]
    assert (report.embedded, report.reused) == (1, 1)
    after = stored(home)
    assert set(after) == {name("a"), name("c")}
    assert np.array_equal(after[name("a")], before[name("a")])


def test_taking_over_again_and_again_changes_nothing(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    before = stored(home)
    for _ in range(3):
        build_generation(home, FIRST, Encoder())
    assert all(np.array_equal(vector, before[digest]) for digest, vector in stored(home).items())


def test_another_encoder_embeds_everything(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    encoder = Encoder(seed=1, dimension=16)
    report = build_generation(home, SECOND, encoder)
    assert (report.embedded, report.reused, report.info.dimension) == (2, 0, 16)


def test_a_damaged_index_is_built_anew(home):
    put(home, name("a"))
    build_generation(home, FIRST, Encoder())
    file = home.index / "000001" / "gallery.faiss"
    file.chmod(0o600)
    file.write_bytes(b"")
    report = build_generation(home, FIRST, Encoder())
    assert (report.embedded, report.info.generation) == (1, "000002")


def test_an_empty_catalogue_is_not_ready(home):
    put(home)
    with pytest.raises(NotReady, match="no images to index") as raised:
        build_generation(home, FIRST, Encoder())
    assert "silo ingest" in raised.value.remedy


def test_no_catalogue_is_not_ready(home):
    with pytest.raises(NotReady, match="no catalogue"):
        build_generation(home, FIRST, Encoder())


def take_out(home, study):
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        return writer.recall("study", [study], since="2026-01-01T00:00:00+00:00", reason="recalled", detail="")


def left_of(home, digests):
    """The files of the index that have any of these contents' digests in them."""
    keys = [bytes.fromhex(digest) for digest in digests]
    files = [file for file in home.index.rglob("*") if file.is_file()]
    return [str(file) for file in files if any(key in file.read_bytes() for key in keys)]


@pytest.mark.parametrize("builds", [1, 3])
@pytest.mark.parametrize("held_in", ["files", "milvus"])
def test_what_was_taken_out_is_in_no_file_after_the_next_build(home, builds, held_in):
    put(home, name("a"), name("b"), name("b", 1))
    home = with_index(home, held_in=held_in, milvus=MilvusSettings(uri="milvus.db"))
    for _ in range(builds):
        build_generation(home, FIRST, Encoder())
    digests = take_out(home, "b")
    assert sorted(digests) == [name("b"), name("b", 1)]
    assert left_of(home, digests)
    report = build_generation(home, FIRST, Encoder())
    assert (report.info.views, report.embedded) == (1, 0)
    assert left_of(home, digests) == []
    leave_milvus(home)
    assert Storage.of(home).collections() == {report.info.collection} - {""}
    build_generation(home, FIRST, Encoder())
    assert len(list(home.index.glob("0*"))) == 2  # with nothing to forget, there is one to fall back on


def test_whoever_was_taken_out_does_not_move_along(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    before, digests = stored(home), take_out(home, "b")
    moved = move_generation(home)
    assert (moved.views, set(stored(home))) == (1, {name("a")})
    assert np.array_equal(stored(home)[name("a")], before[name("a")])
    assert all("000001" in file for file in left_of(home, digests))
    take_out(home, "a")
    with pytest.raises(NotReady, match="no images to index"):
        move_generation(home)
    assert open_current(home.index).info.generation == "000002"


def open_nothing(home):
    with pytest.raises(NotReady, match="no index yet"):
        open_current(home.index)
    return in_use(home.index) is None


def test_whoever_is_alone_in_the_silo_leaves_the_index_too(home):
    put(home, name("b"))
    build_generation(home, FIRST, Encoder())
    digests = take_out(home, "b")
    with pytest.raises(NotReady, match="no images to index"):
        build_generation(home, FIRST, Encoder())
    assert left_of(home, digests) == []
    assert open_nothing(home)
    put(home, name("a"))
    info = build_generation(home, FIRST, Encoder()).info
    assert (info.generation, info.views) == ("000002", 1)


def test_what_leaves_the_catalogue_while_it_is_built_costs_the_rest_nothing(home):
    digests = [name(letter, number) for letter in "abcde" for number in range(9)] + [name("f")] * 1
    digests += [f"{number:064x}" for number in range(100)]
    put(home, *digests)
    cache(home, *digests)
    encoder, asked = Encoder(), []

    def embed(some):
        asked.append(len(some))
        if len(asked) == 1:
            take_out(home, "a")  # embedded a moment later
            take_out(home, "f")  # asked for with a later batch, when its radiograph is gone
        if name("f") in some:
            raise NotReady("the decoded radiograph is missing", remedy="Ingest.")
        return encoder(some)

    report = build_generation(home, FIRST, embed)
    assert len(asked) == 4
    assert (report.info.views, report.embedded, report.reused) == (136, 136, 0)
    assert not {digest for digest in stored(home) if digest[0] in "af"}


def test_what_an_encoder_cannot_do_ends_the_build_though_all_images_are_there(home):
    put(home, name("a"), name("b"))
    cache(home, name("a"), name("b"))

    def embed(_some):
        raise NotReady("the graphics processor has no memory", remedy="Wait.")

    with pytest.raises(NotReady, match="no memory"):
        build_generation(home, FIRST, embed)


class Reading(Encoder):
    """Embeds what the silo's cache holds, as `silo index build` does."""

    def __init__(self, home):
        super().__init__()
        self.cache = RadiographCache(home.cache)

    def __call__(self, digests):
        for digest in digests:
            self.cache.read(digest)
        return super().__call__(digests)


def test_an_image_that_nobody_can_read_is_left_out_and_named(home):
    put(home, name("a"), name("b"), name("c"))
    cache(home, name("a"), name("c"))
    RadiographCache(home.cache).path(name("c")).write_bytes(b"damaged")
    report = build_generation(home, FIRST, Reading(home))
    assert (report.info.views, report.embedded) == (1, 1)
    assert [view.digest for view in report.lacking] == [name("b"), name("c")]
    again = build_generation(home, FIRST, Reading(home), only_new=True)
    assert (again.info.generation, again.embedded, len(again.lacking)) == ("000001", 0, 2)
    cache(home, name("b"))
    last = build_generation(home, FIRST, Reading(home), only_new=True)
    assert (last.info.generation, last.embedded, last.reused, len(last.lacking)) == ("000002", 1, 1, 1)


def test_where_no_image_can_be_read_the_index_in_use_stays(home):
    put(home, name("a"))
    cache(home, name("a"))
    build_generation(home, FIRST, Reading(home))
    RadiographCache(home.cache).discard(name("a"))
    assert build_generation(home, FIRST, Reading(home)).reused == 1
    with pytest.raises(NotReady, match="none of the 1 images is in the cache"):
        build_generation(home, SECOND, Reading(home))
    assert open_current(home.index).info.encoder_version == FIRST


@pytest.mark.parametrize("where", ["folder", "zip", "inbox"])
def test_an_image_that_the_cache_lost_is_decoded_again_from_its_source(make_silo, tmp_path, make_dicom, make_picture, where):
    source = tmp_path / "an archive!"
    source.mkdir()
    home = make_silo(sources=[{"path": str(source)}, {"kind": "listen", "name": "sent", "ae_title": "A", "peers": ["B"]}])
    files = {f"{number}!/ä.dcm": make_dicom(make_picture(24, 20, seed=number)) for number in range(4)}
    (source / "notes.txt").write_text("so that there is a file")
    for path, content in files.items() if where != "zip" else ():
        file = (source if where == "folder" else home.inbox / "sent") / (path if where == "folder" else f"0{path[0]}/a.dcm")
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    if where == "zip":
        with zipfile.ZipFile(source / "all.zip", "w") as made:
            for path, content in files.items():
                made.writestr(path, content)
    assert ingest(home, workers=1).views == 4
    held = RadiographCache(home.cache)
    first, second, *_ = sorted(held.digests())
    held.discard(first)
    held.path(second).write_bytes(held.path(second).read_bytes()[:-1])
    report = build_generation(home, FIRST, Reading(home))
    assert (report.embedded, report.lacking) == (4, ())


NONSENSE = {
    "not a number": lambda digests: np.full((len(digests), 8), np.nan, np.float32),
    "zero": lambda digests: np.zeros((len(digests), 8), np.float32),
    "too few": lambda digests: np.ones((len(digests) - 1, 8), np.float32),
    "one dimension": lambda digests: np.ones(len(digests), np.float32),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_an_encoder_that_makes_nonsense_publishes_nothing(home, kind):
    put(home, name("a"), name("b"))
    with pytest.raises(EncoderMismatch):
        build_generation(home, FIRST, NONSENSE[kind])
    with pytest.raises(NotReady):
        open_current(home.index)


def test_only_what_is_new_is_published(home):
    put(home, name("a"), name("b"))
    build_generation(home, FIRST, Encoder())
    drop(home, name("b"))
    report = build_generation(home, FIRST, Encoder(), only_new=True)
    assert (report.info.generation, report.embedded, report.reused) == ("000001", 0, 2)
    put(home, name("c"))
    report = build_generation(home, FIRST, Encoder(), only_new=True)
    assert (report.info.generation, report.embedded, report.reused) == ("000002", 1, 1)
    assert set(stored(home)) == {name("a"), name("c")}


def test_what_is_new_is_added_to_an_index_of_this_encoder_alone(home):
    put(home, name("a"))
    with pytest.raises(NotReady, match="no index in use is of encoder"):
        build_generation(home, FIRST, Encoder(), only_new=True)
    build_generation(home, FIRST, Encoder())
    put(home, name("b"))
    with pytest.raises(NotReady, match="no index in use is of encoder"):
        build_generation(home, SECOND, Encoder(), only_new=True)
    assert open_current(home.index).info.generation == "000001"


def test_a_build_waits_for_another_as_long_as_it_was_told(home):
    put(home, name("a"))
    begun = threading.Event()

    def other():
        with building(home.index):
            begun.set()
            time.sleep(0.4)

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(5)
    with pytest.raises(NotReady, match="another process builds"):
        build_generation(home, FIRST, Encoder(), wait_s=0.05)
    assert build_generation(home, FIRST, Encoder(), wait_s=10).info.generation == "000001"
    assert move_generation(home, wait_s=10).generation == "000002"
    thread.join()


def test_two_builds_at_once_are_one_too_many(home):
    put(home, name("a"))
    with building(home.index), pytest.raises(NotReady, match="another process builds"):
        build_generation(home, FIRST, Encoder())
