import pytest

from silo_app.cases import PatientKey, Split
from silo_app.catalogue import Catalogue, SiloKey, ViewKeys, ViewRecord
from silo_app.catalogue.named import case_named, views_of_uid
from silo_app.errors import CaseUnknown

KEY = SiloKey(b"k" * 32)


@pytest.fixture
def catalogue(tmp_path):
    """Two images of one study, and a study without a UID."""
    with Catalogue.open(tmp_path / "catalogue.db", create=True) as opened:
        with opened.writing() as writer:
            for number, (instance, study) in enumerate((("1.2.1", "1.2"), ("1.2.2", "1.2"), ("9.1", ""))):
                keys = ViewKeys(
                    instance=KEY.name("instance", instance),
                    study=study or instance,
                    study_uid=KEY.name("study-uid", study),
                    accession="",
                    patient=PatientKey("p"),
                    patient_id="p",
                )
                writer.add_view(ViewRecord(digest=f"{number:064x}", keys=keys, split=Split.TRAIN))
        yield opened


def numbers(views):
    return [int(view.digest, 16) for view in views]


def test_an_image_is_named_by_its_instance_a_study_by_its_own_uid(catalogue):
    assert numbers(views_of_uid(catalogue, KEY, "1.2.2")) == [1]
    assert numbers(views_of_uid(catalogue, KEY, "1.2")) == [0, 1]
    assert numbers(views_of_uid(catalogue, KEY, " 9.1\0")) == [2]


@pytest.mark.parametrize("uid", ["", " ", "1", "1.2.3", "%"])
def test_an_unknown_uid_names_nothing_not_even_studies_without_one(catalogue, uid):
    with pytest.raises(CaseUnknown, match="no image and no study with this UID"):
        views_of_uid(catalogue, KEY, uid)


def test_another_silos_key_finds_nothing(catalogue):
    with pytest.raises(CaseUnknown):
        views_of_uid(catalogue, SiloKey(b"x" * 32), "1.2.1")


def test_a_case_is_named_by_eight_digits_in_any_case(catalogue):
    case = views_of_uid(catalogue, KEY, "1.2")[0].case
    assert case_named(catalogue, case) == case_named(catalogue, f" {case[:8].upper()} ") == case
    with pytest.raises(CaseUnknown, match="at least 8 are needed"):
        case_named(catalogue, case[:7])
    with pytest.raises(CaseUnknown, match="no case of this silo begins with"):
        case_named(catalogue, "0" * 32)
