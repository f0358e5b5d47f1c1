"""What is asked when somebody names a file, a case, a UID, a region, examples: with a real encoder and a real ingest."""

import logging
import shutil

import numpy as np
import pydicom
import pytest
import yaml

from silo_app.cases import EncoderVersion
from silo_app.catalogue import Catalogue
from silo_app.config import load
from silo_app.encoder import checkpoint
from silo_app.encoder.embed import load_encoder
from silo_app.encoder.model import build, to_vector
from silo_app.encoder.places import region_embedding
from silo_app.encoder.region import Region
from silo_app.encoder.spec import EncoderSpec
from silo_app.errors import CaseUnknown, ConfigInvalid, NotReady
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest
from silo_app.index.build import build_generation
from silo_app.search.examples import Example
from silo_app.search.query import Query, Refinement, prepared
from silo_app.search.rocchio import Weights, mean_embedding, refined
from tests.conftest import dicom, encoded, picture

SPEC = EncoderSpec(backbone="densenet-small", input_size=32, embedding_dim=16)
FILES = {  # name: (study, patient)
    "one": ("1.2.826.0.1.111", "PAT-1"),
    "again": ("1.2.826.0.1.222", "PAT-1"),
    "left": ("1.2.826.0.1.333", "PAT-2"),
    "right": ("1.2.826.0.1.333", "PAT-2"),
}


class Held:
    """A silo with four images of three studies, and an encoder."""

    def __init__(self, folder):
        self.home = load(folder / "kit")
        self.files = {name: folder / "source" / f"{name}.dcm" for name in FILES}
        self.encoder = load_encoder(self.home.models)

    @classmethod
    def made(cls, folder):
        (folder / "kit" / "local").mkdir(parents=True)
        (folder / "source").mkdir()
        settings = {"name": "test", "sources": [{"path": str(folder / "source")}]}
        (folder / "kit" / "local" / "silo.yaml").write_text(yaml.safe_dump(settings))
        for number, (name, (study, patient)) in enumerate(FILES.items()):
            uids = {"StudyInstanceUID": study, "SOPInstanceUID": f"{study}.9.{number}", "PatientID": patient}
            (folder / "source" / f"{name}.dcm").write_bytes(encoded(dicom(picture(seed=number), **uids)))
        home = load(folder / "kit")
        ingest(home, workers=1)
        checkpoint.set_current(home.models, checkpoint.save(home.models, SPEC, to_vector(build(SPEC, 1)), {}))
        return cls(folder)

    def index(self):
        cache = RadiographCache(self.home.cache)
        build_generation(
            self.home, self.encoder.version, lambda digests: self.encoder.radiographs([cache.read(d) for d in digests])
        )

    def uid(self, name):
        return str(pydicom.dcmread(self.files[name]).SOPInstanceUID)

    def case(self, name):
        return self.query(Example(uid=self.uid(name))).exclude

    def query(self, example, **refinement) -> Query:
        return prepared(self.home, example, Refinement(**refinement))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return Held.made(tmp_path_factory.mktemp("template"))


@pytest.fixture
def held(template, tmp_path):
    """A copy of a silo, to do with as a test likes; one that ingests again needs its own (`fresh`)."""
    shutil.copytree(template.home.kit.parent, tmp_path / "held")
    return Held(tmp_path / "held")


@pytest.fixture
def fresh(tmp_path):
    return Held.made(tmp_path / "fresh")


@pytest.fixture
def no_network(monkeypatch):
    """Fail if the network is loaded."""

    def fail(*_):
        raise AssertionError("the network was loaded")

    monkeypatch.setattr("silo_app.encoder.embed.load_encoder", fail)


def near(one, other):
    return np.allclose(one, other, atol=1e-5)


def test_a_file_a_case_and_a_uid_of_one_image_ask_the_same(held):
    by_file = held.query(Example(file=held.files["one"]))
    by_uid = held.query(Example(uid=held.uid("one")))
    (case,) = by_uid.exclude
    by_case = held.query(Example(case=case[:8].upper()))
    by_study = held.query(Example(uid=f" {FILES['one'][0]}\0"))
    assert by_file.exclude == frozenset()
    assert by_case.exclude == by_study.exclude == {case}
    assert by_file.encoder_version == by_uid.encoder_version == held.encoder.version
    assert near(by_uid.vector, by_file.vector)
    assert near(by_case.vector, by_file.vector)
    assert near(by_study.vector, by_file.vector)


def test_cases_that_are_named_to_be_moved_by_are_no_answer_either(held):
    (one,), (again,), (right,) = (held.case(name) for name in ("one", "again", "right"))
    moved = {"more": [Example(uid=held.uid("again"))], "less": [Example(case=right)]}
    assert held.query(Example(file=held.files["one"]), **moved).exclude == {again, right}
    assert held.query(Example(case=one), **moved).exclude == {one, again, right}
    files = {"more": [Example(file=held.files["again"])]}
    assert held.query(Example(file=held.files["one"]), **files).exclude == frozenset()


def test_what_the_index_holds_is_not_embedded_again(held, no_network):
    uid = held.uid("one")
    with pytest.raises(AssertionError, match="was loaded"):
        held.query(Example(uid=uid))
    held.index()
    vector = held.query(Example(uid=uid), more=[Example(uid=held.uid("again"))]).vector
    whole, again = (held.encoder.file(held.files[name]) for name in ("one", "again"))
    assert np.allclose(vector, refined(whole, [again]), atol=1e-3)  # an index holds half precision
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_after_a_training_the_encoder_of_the_index_goes_on_asking(held):
    held.index()
    other = checkpoint.save(held.home.models, SPEC, to_vector(build(SPEC, 2)), {})
    checkpoint.set_current(held.home.models, other)
    for example in (Example(uid=held.uid("one")), Example(file=held.files["one"])):
        query = held.query(example)
        assert query.encoder_version == held.encoder.version
        assert query.vector @ held.encoder.file(held.files["one"]) > 0.999  # the index holds half precision


def test_an_index_of_an_encoder_that_the_silo_gave_up_is_not_used(held):
    held.index()
    other = checkpoint.save(held.home.models, SPEC, to_vector(build(SPEC, 2)), {})
    checkpoint.set_current(held.home.models, other)
    shutil.rmtree(held.home.models / held.encoder.version)
    query = held.query(Example(uid=held.uid("one")))
    assert query.encoder_version == EncoderVersion(other)
    assert near(query.vector, load_encoder(held.home.models).file(held.files["one"]))


def test_a_damaged_index_costs_time_only(held):
    held.index()
    for file in held.home.index.glob("*/gallery.faiss"):
        file.chmod(0o600)
        file.write_bytes(b"damaged")
    assert near(held.query(Example(uid=held.uid("one"))).vector, held.encoder.file(held.files["one"]))


def test_a_case_with_two_images_asks_by_their_mean(held):
    (case,) = held.case("left")
    images = [held.encoder.file(held.files[name]) for name in ("left", "right")]
    assert near(held.query(Example(case=case)).vector, mean_embedding(images))
    assert near(held.query(Example(uid=held.uid("right"))).vector, images[1])


def test_the_patients_other_cases_are_left_out_where_that_is_asked(held):
    own = held.case("one") | held.case("again")
    assert len(own) == 2
    for example in (Example(file=held.files["one"]), Example(uid=held.uid("one"))):
        assert prepared(held.home, example, without_patient=True).exclude == own


def test_a_file_of_a_patient_whom_the_silo_does_not_know_has_no_case_to_leave_out(held, tmp_path, make_dicom):
    file = tmp_path / "new.dcm"
    for identifiers in ({}, {"PatientID": "PAT-9"}, {"PatientID": None, "StudyInstanceUID": None, "SOPInstanceUID": None}):
        file.write_bytes(make_dicom(picture(seed=9), **identifiers))
        assert prepared(held.home, Example(file=file), without_patient=True).exclude == frozenset()


def test_of_a_file_that_was_not_ingested_the_patients_cases_are_left_out_by_its_header(held, make_dicom):
    own = held.case("one") | held.case("again")
    new = {"PatientID": "PAT-1", "StudyInstanceUID": "1.2.826.0.1.999", "SOPInstanceUID": "1.2.826.0.1.999.1"}
    content = make_dicom(picture(seed=9), **new)
    assert prepared(held.home, Example(content=content), without_patient=True).exclude == own
    assert prepared(held.home, Example(content=content)).exclude == frozenset()


def test_examples_move_the_query_as_rocchio_says(held):
    vectors = {name: held.encoder.file(file) for name, file in held.files.items()}
    weights = Weights(more=0.5, less=0.3)
    more = [Example(file=held.files["again"]), Example(uid=held.uid("left"))]
    found = held.query(Example(file=held.files["one"]), more=more, less=[Example(file=held.files["right"])], weights=weights)
    expected = refined(vectors["one"], [vectors["again"], vectors["left"]], [vectors["right"]], weights)
    assert near(found.vector, expected)
    assert not near(found.vector, vectors["one"])


def test_a_region_is_pooled_of_a_file_and_of_a_case_alike(held):
    region = Region(0.1, 0.2, 0.6, 0.9)
    by_file = held.query(Example(file=held.files["one"]), region=region)
    (case,) = held.case("one")
    by_case = held.query(Example(case=case), region=region)
    assert near(by_file.vector, by_case.vector)
    assert not near(by_file.vector, held.encoder.file(held.files["one"]))
    with Catalogue.open(held.home.catalogue) as catalogue:
        digest = catalogue.views_of(case)[0].digest
    image = RadiographCache(held.home.cache).read(digest)
    assert near(by_case.vector, region_embedding(held.encoder, image, region))


def test_a_region_of_a_case_with_two_images_says_to_name_one(held):
    (case,) = held.case("left")
    with pytest.raises(ConfigInvalid, match="this case has 2 images, and a region is of one") as raised:
        held.query(Example(case=case), region=Region(0, 0, 0.5, 0.5))
    assert "SOP Instance UID" in raised.value.remedy


@pytest.mark.parametrize("uid", ["1.2.826.0.1.999", "1.2.826.0.1.1", "*", "1.2.826.0.1.111' OR 1=1 --"])
def test_a_uid_that_the_silo_does_not_hold_is_not_repeated(held, uid, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(CaseUnknown) as raised:
        held.query(Example(uid=uid))
    assert "no image and no study with this UID" in raised.value.problem
    assert uid not in str(raised.value) + caplog.text
    assert uid not in repr(Example(uid=uid))


@pytest.mark.parametrize("case", ["3f9c21aa", "3f9c", "not a case"])
def test_a_case_of_nobody_or_of_another_silo_is_unknown(held, case):
    with pytest.raises(CaseUnknown):
        held.query(Example(case=case))
    with pytest.raises(CaseUnknown):
        held.query(Example(file=held.files["one"]), less=[Example(case=case)])


def test_two_patients_studies_of_one_uid_are_not_confused(fresh, make_dicom):
    held = fresh
    (held.files["one"].parent / "other.dcm").write_bytes(
        make_dicom(StudyInstanceUID=FILES["one"][0], PatientID="PAT-3", SOPInstanceUID="1.2.826.7")
    )
    ingest(held.home, workers=1)
    with pytest.raises(CaseUnknown, match="two patients' studies have this UID"):
        held.query(Example(uid=FILES["one"][0]))
    held.query(Example(uid="1.2.826.7"))


def test_an_image_that_left_the_silo_is_no_example(fresh):
    held = fresh
    (case,) = held.case("one")
    uid = held.uid("one")
    held.files["one"].unlink()
    ingest(held.home, workers=1)
    with pytest.raises(CaseUnknown, match="no image of this case is held any more"):
        held.query(Example(case=case))
    with pytest.raises(CaseUnknown, match="no image and no study"):
        held.query(Example(uid=uid))


def test_without_an_encoder_nothing_can_be_asked(make_silo):
    with pytest.raises(NotReady, match="no catalogue"):
        prepared(make_silo(), Example(case="3f9c21aa"))


@pytest.mark.parametrize("given", [{}, {"case": "3f9c21aa", "uid": "1.2"}])
def test_exactly_one_thing_says_what_is_sought(given):
    with pytest.raises(ConfigInvalid, match="things say what is sought, one is needed"):
        Example(**given)
