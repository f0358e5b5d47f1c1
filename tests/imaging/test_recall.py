"""What a hospital takes out is out: of catalogue, cache and search, for every ingest to come, until it lets it in again."""

import json
from pathlib import Path

import pytest

from silo_app.catalogue import Catalogue, SiloKey, Vault
from silo_app.errors import CaseUnknown, ConfigInvalid
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.ingest import ingest
from silo_app.imaging.recall import Subject, recall, restore
from silo_app.imaging.sources.inbox import Inbox
from silo_app.search.current import OpenCatalogue

WHO = {"user": "u", "reason": "consent"}


@pytest.fixture
def home(make_silo, tmp_path, make_dicom, make_picture):
    """Two patients: PATIENT-1 with studies 1.1 (two images) and 1.2, PATIENT-2 with study 2.1."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for number, (patient, study) in enumerate(
        [("PATIENT-1", "1.1"), ("PATIENT-1", "1.1"), ("PATIENT-1", "1.2"), ("PATIENT-2", "2.1")]
    ):
        picture = make_picture(24, 20, seed=number)
        (source / f"{number}.dcm").write_bytes(make_dicom(picture, PatientID=patient, StudyInstanceUID=study))
    home = make_silo()
    assert ingest(home, workers=1).views == 4
    return home


def views(home):
    with Catalogue.open(home.catalogue) as catalogue:
        return catalogue.views()


def test_a_study_leaves_catalogue_and_cache_and_does_not_come_back(home):
    (first, *_, last) = views(home)
    with Catalogue.open(home.catalogue) as catalogue:
        before = {view.digest for view in catalogue.views() if view.case == first.case}
    searched = OpenCatalogue(home)
    assert searched.view_of(first.case) is not None
    done = recall(home, Subject(case=first.case[:8]), **WHO)
    assert (done.kind, done.found, done.views) == ("study", 1, len(before))
    assert searched.view_of(first.case) is None
    assert searched.view_of(last.case) is not None or last.case == first.case
    searched.close()
    assert not before & set(RadiographCache(home.cache).digests())
    again = ingest(home, workers=1)
    assert (again.added, again.views) == (0, 4 - len(before))
    assert [one.reason for one in again.refused] == ["recalled"] * len(before)


def test_a_study_that_is_sent_again_under_another_name_stays_out(home, tmp_path, make_dicom, make_picture):
    recall(home, Subject(study_uid="2.1"), **WHO)
    picture = make_picture(24, 20, seed=99)
    (tmp_path / "source" / "new.dcm").write_bytes(make_dicom(picture, PatientID="PATIENT-2", StudyInstanceUID="2.1"))
    report = ingest(home, workers=1)
    assert (report.added, report.views) == (0, 3)
    assert len(list(RadiographCache(home.cache).digests())) == 3


def test_what_the_archive_sent_stays_in_the_inbox_and_is_named(make_silo, make_dicom, make_picture):
    home = make_silo(sources=[{"kind": "listen", "name": "sent", "ae_title": "SILO", "peers": ["PACS"]}])
    inbox = Inbox(home.inbox / "sent")
    for number, study in enumerate(["1.1", "1.1", "1.2"]):
        inbox.root.mkdir(parents=True, exist_ok=True)
        inbox.store(f"9.{number}", make_dicom(make_picture(24, 20, seed=number), StudyInstanceUID=study))
    ingest(home, workers=1)
    done = recall(home, Subject(study_uid="1.1"), **WHO)
    assert sorted(done.sent) == sorted(str(inbox.path(f"9.{number}")) for number in (0, 1))
    again = ingest(home, workers=1)
    assert {(one.reason, str(home.inbox / one.source / one.path)) for one in again.refused} == {
        ("recalled", path) for path in done.sent
    }
    restore(home, Subject(study_uid="1.1"), **WHO)
    assert ingest(home, workers=1).views == 3
    for path in recall(home, Subject(study_uid="1.1"), **WHO).sent:
        Path(path).unlink()
    assert ingest(home, workers=1).refused == ()
    inbox.store("9.0", make_dicom(make_picture(24, 20, seed=0), StudyInstanceUID="1.1"))
    assert [one.reason for one in ingest(home, workers=1).refused] == ["recalled"]


def test_a_patient_is_out_with_studies_that_come_later(home, tmp_path, make_dicom, make_picture):
    done = recall(home, Subject(patient_id="PATIENT-1"), **WHO)
    assert (done.kind, done.views) == ("patient", 3)
    picture = make_picture(24, 20, seed=99)
    (tmp_path / "source" / "new.dcm").write_bytes(make_dicom(picture, PatientID="PATIENT-1", StudyInstanceUID="1.3"))
    report = ingest(home, workers=1)
    assert (report.added, report.views) == (0, 1)


@pytest.mark.parametrize("subject", [Subject(study_uid="2.1"), Subject(patient_id="PATIENT-2")])
@pytest.mark.parametrize("correction", [{"PatientID": "PATIENT-1"}, {"PatientID": "PATIENT-2", "IssuerOfPatientID": "H"}])
def test_what_is_out_stays_out_when_the_archive_corrects_whose_it_is(home, tmp_path, make_dicom, subject, correction):
    """Patients are merged, IDs corrected and issuers named: then a study is another one to the catalogue."""
    recall(home, subject, **WHO)
    file = tmp_path / "source" / "3.dcm"
    file.write_bytes(make_dicom(StudyInstanceUID="2.1", **correction))
    report = ingest(home, workers=1)
    assert (report.added, report.views) == (0, 3)
    restore(home, subject, **WHO)
    assert ingest(home, workers=1).views == 4


def test_an_image_that_is_out_stays_out_in_whatever_study_it_comes(home, tmp_path, make_dicom, make_picture):
    moved = {"SOPInstanceUID": "5.1", "PatientID": "PATIENT-5"}
    file = tmp_path / "source" / "5.dcm"
    file.write_bytes(make_dicom(make_picture(24, 20, seed=5), StudyInstanceUID="5", **moved))
    ingest(home, workers=1)
    recall(home, Subject(study_uid="5"), **WHO)
    file.write_bytes(make_dicom(make_picture(24, 20, seed=5), StudyInstanceUID="6", **moved | {"PatientID": "PATIENT-6"}))
    assert ingest(home, workers=1).views == 4


def test_a_case_that_is_out_leaves_the_other_study_of_its_uid(home, tmp_path, make_dicom, make_picture):
    file = tmp_path / "source" / "other.dcm"
    file.write_bytes(make_dicom(make_picture(24, 20, seed=9), PatientID="PATIENT-9", StudyInstanceUID="2.1"))
    ingest(home, workers=1)
    with Catalogue.open(home.catalogue, vault=Vault(SiloKey.load(home.key))) as catalogue:
        patients = {view.case: catalogue.identity(view.case).patient_id for view in catalogue.views()}
    (gone,) = (case for case, patient in patients.items() if patient == "PATIENT-2")
    recall(home, Subject(case=gone), **WHO)
    file.write_bytes(make_dicom(make_picture(24, 20, seed=10), PatientID="PATIENT-9", StudyInstanceUID="2.1"))
    assert ingest(home, workers=1).views == 4
    assert {view.case for view in views(home)} == set(patients) - {gone}


def taken_out(home):
    with Catalogue.open(home.catalogue) as catalogue:
        return set(catalogue.taken_out())


def test_the_cases_of_whoever_was_taken_out_are_known_until_they_are_let_in(home):
    before = {view.case for view in views(home)}
    assert taken_out(home) == set()
    recall(home, Subject(patient_id="PATIENT-1"), **WHO)
    assert taken_out(home) == before - {view.case for view in views(home)}
    recall(home, Subject(study_uid="2.1"), **WHO)
    assert taken_out(home) == before
    restore(home, Subject(patient_id="PATIENT-1"), **WHO)
    restore(home, Subject(study_uid="2.1"), **WHO)
    assert taken_out(home) == set()


def test_what_is_let_in_again_has_its_case_id_after_the_next_ingest(home):
    before = views(home)
    recall(home, Subject(patient_id="PATIENT-1"), **WHO)
    recall(home, Subject(study_uid="2.1"), **WHO)
    assert views(home) == []
    restore(home, Subject(patient_id="PATIENT-1"), **WHO)
    report = ingest(home, workers=1)
    assert (report.added, report.views) == (3, 3)
    restore(home, Subject(study_uid="2.1"), **WHO)
    assert ingest(home, workers=1).views == 4
    assert views(home) == before


def test_who_took_what_out_is_in_the_audit_log_without_an_identifier(home):
    recall(home, Subject(patient_id="PATIENT-1"), **WHO)
    restore(home, Subject(patient_id="PATIENT-1"), **WHO)
    lines = [json.loads(line) for line in home.audit.read_text().splitlines()]
    assert [one["event"] for one in lines[-2:]] == ["case-recalled", "case-restored"]
    assert "PATIENT-1" not in home.audit.read_text()
    assert b"PATIENT-1" not in home.catalogue.read_bytes()


@pytest.mark.parametrize("subject", [Subject(), Subject(case="0" * 8, study_uid="1.1")])
def test_exactly_one_thing_names_what_to_take(home, subject):
    with pytest.raises(ConfigInvalid, match="one is needed"):
        recall(home, subject, **WHO)


@pytest.mark.parametrize(
    "subject", [Subject(case="0"), Subject(case="f" * 32), Subject(study_uid="9"), Subject(patient_id="9")]
)
def test_what_the_silo_never_held_is_refused(home, subject):
    with pytest.raises(CaseUnknown):
        recall(home, subject, **WHO)
    assert len(views(home)) == 4


def test_what_was_not_taken_out_cannot_be_let_in(home):
    with pytest.raises(CaseUnknown, match="was not taken out"):
        restore(home, Subject(study_uid="1.1"), **WHO)
