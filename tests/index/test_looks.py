"""The look: learned at the first build with an encoder, kept with the generation, the same for vectors and queries."""

import numpy as np
import pytest

from silo_app.cases import EncoderVersion, Finding, PatientKey, Split
from silo_app.catalogue import Catalogue, FileRecord, ViewKeys, ViewRecord
from silo_app.encoder.looks import FEWEST, FindingsHead
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import NotReady
from silo_app.index.build import build_generation, move_generation
from silo_app.index.generations import look_in_use, open_current
from silo_app.index.manifest import LOOK_FILE

VERSION, OTHER = EncoderVersion("ab" * 16), EncoderVersion("cd" * 16)
SIDE = 8
HEAD = FindingsHead(EncoderSpec(findings=(Finding.EDEMA,), looks="removed"), np.eye(1, SIDE, dtype=np.float32))


@pytest.fixture
def home(make_silo):
    made = make_silo()
    made.root.mkdir()
    return made


def digest(number):
    return f"{number:064x}"


def put(home, numbers):
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        for number in numbers:
            name = digest(number)
            patient = {"patient": PatientKey(name), "patient_id": name}
            keys = ViewKeys(instance=name, study=name, study_uid=name, accession="", **patient)
            writer.add_view(ViewRecord(digest=name, keys=keys, split=Split.TRAIN))
            writer.record_file(FileRecord(source="s", path=name, size=1, mtime_ns=1, recipe="r", digest=name))


def embedded(digests):
    """Return what an encoder makes of this silo's images: all of them lean to one side."""
    rows = [np.random.default_rng(int(name, 16)).standard_normal(SIDE) + 3 for name in digests]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def build(home, head=HEAD, version=VERSION):
    return build_generation(home, version, embedded, head=head)


def stored(home):
    opened = open_current(home.index)
    vectors = opened.gallery.vectors(np.arange(opened.info.views))
    return {row.tobytes().hex(): vector for row, vector in zip(opened.digests, vectors, strict=True)}


def assert_vectors_lack_the_look(home):
    look = look_in_use(home.index, VERSION)
    for name, vector in stored(home).items():
        assert np.allclose(vector, look.removed(embedded([name]))[0], atol=2e-3)


def test_the_vectors_lack_what_a_query_will_lack(home):
    put(home, range(40))
    assert build(home).info.look_views == 40
    assert_vectors_lack_the_look(home)
    centre = np.mean(list(stored(home).values()), axis=0)
    assert np.linalg.norm(centre[1:]) < 0.2 < np.linalg.norm(embedded(list(stored(home))).mean(axis=0)[1:])


def test_without_a_head_vectors_stay_as_they_are(home):
    put(home, range(40))
    info = build(home, head=None).info
    assert info.look_views is None
    assert LOOK_FILE not in info.files
    assert all(np.allclose(vector, embedded([name])[0], atol=2e-3) for name, vector in stored(home).items())
    with pytest.raises(NotReady, match="is not known yet"):
        look_in_use(home.index, VERSION)


def test_a_later_build_keeps_the_look_and_embeds_only_what_is_new(home):
    put(home, range(40))
    build(home)
    before = look_in_use(home.index, VERSION).content()
    put(home, range(40, 50))
    report = build(home)
    assert (report.embedded, report.reused, report.info.look_views) == (10, 40, 40)
    assert look_in_use(home.index, VERSION).content() == before
    assert_vectors_lack_the_look(home)


def test_a_radiograph_that_was_recalled_leaves_the_look_and_nothing_is_embedded_anew(home):
    put(home, range(40))
    build(home)
    with Catalogue.open(home.catalogue) as catalogue, catalogue.writing() as writer:
        writer.forget_files("s", [digest(7)])
        assert writer.drop_orphans() == [digest(7)]
    report = build(home)
    assert (report.info.views, report.embedded) == (39, 0)
    near = {row.tobytes().hex() for row in look_in_use(home.index, VERSION).near_digests}
    assert near == {digest(number) for number in range(40) if number != 7}


def test_a_silo_that_has_doubled_learns_its_look_anew(home):
    put(home, range(40))
    build(home)
    put(home, range(40, 80))
    report = build(home)
    assert (report.embedded, report.reused, report.info.look_views) == (80, 0, 80)
    assert_vectors_lack_the_look(home)


def test_a_silo_with_too_few_views_learns_its_look_as_soon_as_it_can(home):
    put(home, range(FEWEST - 1))
    build(home)
    put(home, [FEWEST])
    assert build(home).info.look_views == FEWEST
    assert_vectors_lack_the_look(home)


def test_moving_the_index_keeps_the_look(home):
    put(home, range(40))
    build(home)
    before = look_in_use(home.index, VERSION).content()
    assert move_generation(home).look_views == 40
    assert look_in_use(home.index, VERSION).content() == before
    assert_vectors_lack_the_look(home)


def test_the_look_belongs_to_one_encoder(home):
    put(home, range(40))
    build(home)
    with pytest.raises(NotReady, match="silo index build"):
        look_in_use(home.index, OTHER)
    build(home, version=OTHER)
    assert look_in_use(home.index, OTHER).dimension == look_in_use(home.index, VERSION).dimension


def test_a_damaged_look_is_not_used(home):
    put(home, range(40))
    build(home)
    file = home.index / open_current(home.index).info.generation / LOOK_FILE
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(NotReady, match="is not known yet"):
        look_in_use(home.index, VERSION)
    assert build(home).embedded == 40
    assert_vectors_lack_the_look(home)
