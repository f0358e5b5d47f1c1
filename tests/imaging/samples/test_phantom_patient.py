import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from silo_app.cases import Finding
from silo_app.imaging.samples.hospitals import hospital, hospital_name
from silo_app.imaging.samples.patients import draw_patient, studies_of_patients
from silo_app.imaging.samples.phantom_patient import MARK, Order, curve, encode, findings, make_patient


@pytest.mark.parametrize("kind", range(5))
def test_what_is_stored_shows_the_picture(kind):
    """Every combination of rescale, VOI and polarity that a hospital writes leads back to the picture."""
    random = np.random.default_rng(kind)
    ramp = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (4, 1))
    for _ in range(30):
        stored, display = encode(ramp, 12, hospital(kind).style, random)
        ds = pydicom.Dataset()
        ds.BitsStored, ds.BitsAllocated, ds.PixelRepresentation = 12, 16, 0
        ds.PhotometricInterpretation = "MONOCHROME2"
        if display.rescale:
            ds.RescaleSlope, ds.RescaleIntercept = display.rescale
        if display.window:
            ds.WindowCenter, ds.WindowWidth = display.window
            ds.VOILUTFunction = display.function or "LINEAR"
            shown = apply_voi_lut(apply_modality_lut(stored, ds), ds)
        else:
            shown = display.table[stored].astype(float)
        if display.inverted:
            shown = shown.max() - shown
        assert np.corrcoef(shown[0], ramp[0])[0, 1] > 0.97
        assert (np.diff(shown[0]) >= -1e-6).all()


def test_a_curve_rises_over_all_stored_values():
    table = curve(1023, 500.0, 800.0)
    assert len(table) == 1024
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (table[0], table[-1]) == (0, 4095)


def test_a_patients_files_are_marked_and_named(tmp_path):
    made = make_patient(Order(seed=3, hospital=0, patient=7, studies=3, folder=tmp_path))
    files = sorted(tmp_path.rglob("*.dcm"))
    headers = [pydicom.dcmread(file) for file in files]
    assert made.images == len(files) >= 3
    assert {ds.StudyInstanceUID for ds in headers} == {study for study, _ in made.labels}
    assert len({ds.SOPInstanceUID for ds in headers}) == len(files)
    assert len({(ds.PatientID, ds.PatientSex, ds.PatientBirthDate) for ds in headers}) == 1
    assert all(MARK in ds.ImageComments and MARK in ds.SeriesDescription for ds in headers)
    assert all(ds.QualityControlImage == "YES" and ds.ContributingEquipmentSequence for ds in headers)
    assert sorted({ds.StudyDate for ds in headers}) == list(dict.fromkeys(ds.StudyDate for ds in headers))
    for ds in headers:
        years = int(ds.StudyDate[:4]) - int(ds.PatientBirthDate[:4])
        assert years - 1 <= int(ds.PatientAge[:3]) <= years


def test_no_file_names_its_finding(tmp_path):
    """The truth is in labels.csv alone: a model or a tag rule must not find it in the header."""
    make_patient(Order(seed=3, hospital=1, patient=2, studies=4, folder=tmp_path))
    for file in tmp_path.rglob("*.dcm"):
        text = str(pydicom.dcmread(file, stop_before_pixels=True)).lower()
        assert not [one for one in Finding if one.value.lower() in text]


def test_one_anatomy_through_all_studies():
    patient = draw_patient(hospital(0), 4, np.random.default_rng(1))
    assert len(patient.visits) == 4
    assert [visit.day for visit in patient.visits] == sorted(visit.day for visit in patient.visits)


def test_studies_add_up():
    counts = studies_of_patients(57, np.random.default_rng(0))
    assert sum(counts) == 57
    assert max(counts) > 1


def test_hospitals_differ_in_acquisition_and_cases():
    rooms = [hospital(index) for index in range(3)]
    assert len({one.room.kvp for one in rooms}) == len({(one.room.rows, one.room.columns) for one in rooms}) == 3
    assert len({tuple(one.mix.values()) for one in rooms}) == 3
    assert [hospital_name(index) for index in (0, 25, 26)] == ["hospital-a", "hospital-z", "hospital-27"]


def test_a_visit_without_abnormality_is_no_finding():
    random = np.random.default_rng(0)
    visits = [visit for _ in range(40) for visit in draw_patient(hospital(0), 2, random).visits]
    named = {findings(visit) for visit in visits}
    assert ("No Finding",) in named
    assert all("No Finding" not in names for names in named if len(names) > 1)
    assert any(len(names) == 2 for names in named)
