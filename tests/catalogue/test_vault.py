"""What stays readable inside the silo is sealed at rest, and opens for its case and key only."""

import sqlite3

import pytest

from silo_app.audit.log import verify
from silo_app.audit.recent import newest_records
from silo_app.cases import CaseId
from silo_app.catalogue import Catalogue, FileRecord, SiloKey, StudyIdentity, Vault
from silo_app.catalogue.whois import look_up
from silo_app.errors import CaseUnknown, CatalogueDamaged, NotReady
from silo_app.imaging.ingest import ingest

KEY = SiloKey(b"k" * 32)
STUDY = StudyIdentity(study_uid="1.2.3", accession="ACC", patient_id="P", issuer="H")


def test_a_study_opens_for_its_case_and_key_only():
    sealed = Vault(KEY).seal(CaseId("c"), STUDY)
    assert b"1.2.3" not in sealed
    assert Vault(KEY).open(CaseId("c"), sealed) == STUDY
    assert "1.2.3" not in repr(STUDY)
    for vault, case, content in (
        (Vault(SiloKey(b"x" * 32)), "c", sealed),
        (Vault(KEY), "d", sealed),
        (Vault(KEY), "c", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (Vault(KEY), "c", b""),
    ):
        with pytest.raises(CatalogueDamaged, match="does not open"):
            vault.open(CaseId(case), content)


@pytest.mark.parametrize("name", ["", "a", "DOE^JANE/1.dcm", "x" * 32, "\u00e4\u00f6" * 40])
def test_a_name_comes_back_and_has_one_token(name):
    token = Vault(KEY).name(name)
    assert token == Vault(KEY).name(name)
    assert Vault(KEY).clear(token) == name
    assert len(name) < 3 or name not in token
    with pytest.raises(CatalogueDamaged):
        Vault(SiloKey(b"x" * 32)).clear(token)


def test_names_of_different_length_have_tokens_of_one_length():
    assert len(Vault(KEY).name("a")) == len(Vault(KEY).name("DOE^JANE 1950"))


def test_what_an_earlier_version_wrote_in_clear_leaves_the_file(tmp_path):
    path = tmp_path / "catalogue.db"
    with Catalogue.open(path, create=True) as catalogue, catalogue.writing() as writer:
        for number in range(300):
            file = FileRecord(
                source="/DOE", path=f"JANE{number}.dcm", size=1, mtime_ns=1584403200_000000000, recipe="r", reason="blank"
            )
            writer.record_file(file)
    assert b"JANE7.dcm" in path.read_bytes()
    with Catalogue.open(path, vault=Vault(KEY)) as catalogue:
        catalogue.seal_names()
        catalogue.seal_names()
        assert {refusal.path for refusal in catalogue.refusals()} == {f"JANE{number}.dcm" for number in range(300)}
        with catalogue.writing() as writer:
            assert writer.files("/DOE")["JANE7.dcm"].mtime_ns == catalogue.stamp(1584403200_000000000)
            writer.forget_files("/DOE", ["JANE7.dcm"])
        assert len(catalogue.refusals()) == 299
    for file in tmp_path.iterdir():
        assert b"JANE" not in file.read_bytes()
        assert b"/DOE" not in file.read_bytes()


def test_whois_finds_the_study_and_is_audited(make_silo, make_dicom, tmp_path):
    home = make_silo()
    file = tmp_path / "source" / "one.dcm"
    file.write_bytes(make_dicom(StudyInstanceUID="1.2.3", AccessionNumber="ACC", PatientID="P", IssuerOfPatientID="H"))
    ingest(home, workers=1)
    with Catalogue.open(home.catalogue) as catalogue:
        (view,) = catalogue.views()
        assert catalogue.identity(view.case) is None, "not without the key"
        assert catalogue.files_of(view.case) == []
    found = look_up(home, view.case[:8], user="ann", reason="care")
    assert (found.case, found.study) == (view.case, STUDY)
    assert found.files == (f"{tmp_path / 'source'}: one.dcm",)
    assert verify(home.audit).lines == 1
    (line,) = newest_records(home.audit)
    assert (line["event"], line["case"], line["user"], line["reason"]) == ("whois", view.case, "ann", "care")
    assert "1.2.3" not in str(line)
    file.unlink()
    (tmp_path / "source" / "two.dcm").write_bytes(make_dicom(StudyInstanceUID="1.2.4"))
    ingest(home, workers=1)
    with pytest.raises(CaseUnknown, match="no image of this case is held"):
        look_up(home, view.case, user="ann", reason="care")
    connection = sqlite3.connect(home.catalogue)
    assert connection.execute("SELECT count(*) FROM crosswalk").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("case", ["", "1234567", "zzzzzzzz", "0" * 33, "%%%%%%%%"])
def test_what_is_no_case_id_is_refused(make_silo, case):
    with pytest.raises(CaseUnknown, match="32 hexadecimal digits"):
        look_up(make_silo(), case, user="ann", reason="care")


def test_without_the_key_there_is_no_whois(make_silo, make_dicom, tmp_path):
    home = make_silo()
    (tmp_path / "source" / "one.dcm").write_bytes(make_dicom())
    ingest(home, workers=1)
    home.key.unlink()
    with pytest.raises(NotReady, match="no key"):
        look_up(home, "0" * 32, user="ann", reason="care")
    assert not home.key.exists()
