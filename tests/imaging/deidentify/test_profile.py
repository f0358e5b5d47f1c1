"""De-identification: what the standard's table removes goes at every level, names are keyed, twice equals once."""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from silo_app.catalogue import SiloKey
from silo_app.imaging.deidentify.export import deidentified, encoded
from silo_app.imaging.deidentify.names import Names
from silo_app.imaging.deidentify.profile import deidentify
from silo_app.imaging.parse import quiet
from silo_app.imaging.radiograph import read_radiograph

ONE, TWO = Names(SiloKey(b"1" * 32)), Names(SiloKey(b"2" * 32))


def read(content):
    return pydicom.dcmread(io.BytesIO(content))


def item(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_patient_goes_and_the_file_says_so(make_dicom):
    content = make_dicom(PatientName="Doe^Jane", PatientID="PLANT4711X", StudyDate="20200317", ViewPosition="PA", KVP="120")
    ds = read(encoded(deidentified(content, ONE)))
    assert (str(ds.PatientName), str(ds.StudyDate)) != ("Doe^Jane", "20200317")
    assert b"4711X" not in encoded(ds)
    assert ds.PatientID.startswith("SILO")
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert all(len(value) <= 64 for value in ds.DeidentificationMethod)
    assert [code.CodeValue for code in ds.DeidentificationMethodCodeSequence] == ["113100"]
    assert (ds.ViewPosition, float(ds.KVP)) == ("PA", 120)


def test_image_is_the_same(make_dicom, make_picture):
    for signed in (False, True):
        pixels = make_picture(40, 30) - (2048 if signed else 0)
        content = make_dicom(pixels, bits=12, signed=signed)
        after = encoded(deidentified(content, ONE))
        assert np.array_equal(read_radiograph(after).pixels, read_radiograph(content).pixels)


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
def test_image_of_a_big_endian_file_is_the_same(make_dataset, encode_dicom, make_picture, keyword):
    """Pixels and tables are words, which lie the other way round in the copy."""
    ds = make_dataset(make_picture(), TransferSyntaxUID="1.2.840.10008.1.2.2")
    ds.PixelData = make_picture().astype(">u2").tobytes()
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "OW", (np.arange(4096) ** 2 >> 12).astype(">u2").tobytes())
    setattr(ds, keyword, [table])
    content = encode_dicom(ds)
    copy = read_radiograph(encoded(deidentified(content, ONE))).pixels
    np.testing.assert_array_equal(copy, read_radiograph(content).pixels)


def test_names_depend_on_the_key_and_on_nothing_else():
    assert ONE.uid("1.2.3") == ONE.uid("1.2.3") != TWO.uid("1.2.3")
    assert ONE.uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"
    assert ONE.patient("P", "A") != ONE.patient("P", "B")
    assert ONE.patient("") == ONE.uid("") == ""
    assert ONE.uid("2.25.12345") != "2.25.12345"
    assert ONE.uid(TWO.uid("1.2.3")) != TWO.uid("1.2.3"), "another silo's name is no name of ours"


@given(st.text(alphabet="0123456789.", min_size=1, max_size=64))
def test_naming_twice_is_naming_once(value):
    assert ONE.uid(ONE.uid(value)) == ONE.uid(value)
    assert ONE.patient(ONE.patient(value)) == ONE.patient(value)
    assert len(ONE.uid(value)) <= 64
    assert len(ONE.patient(value)) <= 64


def test_references_stay_consistent(make_dataset, encode_dicom):
    ds = make_dataset(SOPInstanceUID="1.2.3.4")
    ds.ReferencedImageSequence = Sequence([item(ReferencedSOPClassUID=ds.SOPClassUID, ReferencedSOPInstanceUID="1.2.3.4")])
    after = deidentified(encode_dicom(ds), ONE)
    (reference,) = after.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    assert reference.ReferencedSOPClassUID == ds.SOPClassUID


def test_sequences_are_entered(make_dataset, encode_dicom):
    """dicom-anonymizer looks at the top level alone: a name within View Code Sequence would stay."""
    ds = make_dataset()
    inner = item(CodeValue="272479007", CodingSchemeDesignator="SCT", CodeMeaning="PA", PatientName="SECRET^A")
    inner.add_new(0x00111001, "LO", "SECRETPRIVATE")
    inner.RequestAttributesSequence = Sequence([item(RequestedProcedureID="SECRETB")])
    ds.ViewCodeSequence = Sequence([inner])
    after = encoded(deidentified(encode_dicom(ds), ONE))
    assert b"SECRET" not in after
    assert read(after).ViewCodeSequence[0].CodeValue == "272479007"


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00091001, "LO", "SECRET"),
        (0x60003000, "OW", b"SECRET"),
        (0x60020022, "LO", "SECRET"),
        (0x50000022, "LO", "SECRET"),
        (0xFFFCFFFC, "OB", b"SECRET"),
        (0x00081030, "LO", "SECRET"),
        (0x00104000, "LT", "SECRET"),
        (0x00204000, "LT", "SECRET"),
        (0x00080090, "PN", "SECRET^A"),
        (0x00181000, "LO", "SECRET"),
        (0x00283003, "LO", "SECRET"),
        (0x00281055, "LO", "SECRET"),
        (0x00204444, "LO", "SECRET"),
        (0x00180015, "CS", "secret.lower"),
        (0x0040A160, "UT", "SECRET"),
        (0x00080000, "UL", 7),
        (0x00420011, "OB", b"SECRET"),
    ],
)
def test_attribute_is_gone(make_dataset, tag, vr, value):
    ds = make_dataset()
    with quiet():
        ds.add_new(tag, vr, value)
    deidentify(ds, ONE)
    assert tag not in ds or value != ds[tag].value


def test_nothing_rides_along_outside_the_dataset(make_dataset, encode_dicom):
    ds = make_dataset()
    ds.preamble = b"SECRET".ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle = "SECRETAE"
    ds.file_meta.PrivateInformationCreatorUID = "1.2.3"
    ds.file_meta.PrivateInformation = b"SECRET"
    ds.PixelData += b"SECRETPADDING\0"
    after = encoded(deidentified(encode_dicom(ds), ONE))
    assert b"SECRET" not in after


def test_overlay_in_unused_bits_goes(make_dataset, encode_dicom, make_picture):
    pixels = make_picture(bits=12)
    ds = make_dataset(pixels | np.uint16(0x8000))
    after = deidentified(encode_dicom(ds), ONE)
    assert np.array_equal(np.frombuffer(after.PixelData, "<u2").reshape(pixels.shape), pixels)


def test_compressed_file_is_written_plain(make_dataset, encode_dicom):
    from pydicom.uid import RLELossless

    ds = make_dataset()
    plain = encode_dicom(ds)
    ds.compress(RLELossless, generate_instance_uid=False)
    assert encoded(deidentified(encode_dicom(ds), ONE)) == encoded(deidentified(plain, ONE))


text = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=16)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from(
            ["PatientName", "PatientID", "StudyID", "ImageComments", "BodyPartExamined", "ProtocolName", "StudyDate"]
        ),
        text,
        max_size=7,
    ),
    depth=st.integers(0, 20),
)
def test_twice_equals_once(make_dicom, make_dataset, encode_dicom, values, depth):
    ds = make_dataset(np.arange(400, dtype=np.uint16).reshape(20, 20), **{"SOPInstanceUID": "1.2.3", **values})
    inner = item(PatientID="P")
    for _ in range(depth):
        inner = item(ViewCodeSequence=Sequence([inner]), PatientID="P")
    ds.ViewCodeSequence = Sequence([inner])
    once = encoded(deidentified(encode_dicom(ds), ONE))
    assert encoded(deidentified(once, ONE)) == once
