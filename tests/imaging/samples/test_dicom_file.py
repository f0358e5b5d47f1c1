import datetime as dt

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from silo_app.cases import Sex, ViewPosition
from silo_app.imaging.samples.dicom_file import Display, Identity, add_pixels, equipment, header, uid, write

IDENTITY = Identity(
    patient_id="PHA00001",
    patient_name="Phantom^A00001",
    sex=Sex.FEMALE,
    age=61,
    born=dt.date(1960, 5, 4),
    day=dt.date(2022, 3, 1),
    accession="A0000101",
    institution="Hospital A (synthetic)",
    study_uid=uid("study"),
    series_uid=uid("series"),
    instance_uid=uid("instance"),
)
SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
]


def made(path, stored, bits, *, display=None, syntax=ExplicitVRLittleEndian, sop=ComputedRadiographyImageStorage):
    ds = header(IDENTITY, sop, ViewPosition.PA, "test")
    ds.ContributingEquipmentSequence = [equipment("test", code="109101", meaning="Acquisition Equipment")]
    add_pixels(ds, stored, bits, display or Display())
    write(ds, path, syntax)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_every_syntax_keeps_every_value(tmp_path, syntax, bits):
    stored = np.random.default_rng(bits).integers(0, 2**bits, (72, 65)).astype(np.uint16)
    ds = made(tmp_path / "a.dcm", stored, bits, syntax=syntax)
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, bits, bits - 1)
    np.testing.assert_array_equal(ds.pixel_array, stored)


def test_eight_bits_of_an_odd_number_of_pixels(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    np.testing.assert_array_equal(made(tmp_path / "a.dcm", stored, 8).pixel_array, stored)


@pytest.mark.parametrize(
    ("inverted", "photometric", "shape"),
    [
        (True, "MONOCHROME1", "INVERSE"),
        (False, "MONOCHROME2", "IDENTITY"),
    ],
)
def test_polarity_is_written_as_dx_demands(tmp_path, inverted, photometric, shape):
    dx = DigitalXRayImageStorageForPresentation
    ds = made(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), 12, display=Display(inverted=inverted), sop=dx)
    assert (ds.PhotometricInterpretation, ds.PresentationLUTShape) == (photometric, shape)
    assert (ds.Modality, ds.PresentationIntentType) == ("DX", "FOR PRESENTATION")


def test_a_table_is_written_whole(tmp_path):
    table = np.arange(1024, dtype=np.uint16) * 4
    ds = made(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), 10, display=Display(table=table))
    item = ds.VOILUTSequence[0]
    assert list(item.LUTDescriptor) == [1024, 0, 12]
    np.testing.assert_array_equal(np.frombuffer(item.LUTData, "<u2"), table)


def test_uids_are_valid_and_come_from_their_parts():
    assert UID(uid("a", 1)).is_valid
    assert len(uid("a", 1)) <= 64
    assert uid("a", 1) == uid("a", 1)
    assert len({uid("a", 1), uid("a", 2), uid("a1"), uid("a", "1", "")}) == 4


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name in ("a", "b"):
        made(tmp_path / name, stored, 12, syntax=DeflatedExplicitVRLittleEndian)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
