"""Facts of a view from headers as hospitals write them."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from silo_app.cases import Sex, ViewPosition
from silo_app.imaging.header import header_of
from silo_app.imaging.parse import dataset_of


@pytest.fixture
def header(make_dicom):
    def read(label_keyword="", **attributes):
        ds = dataset_of(make_dicom(**attributes), also=(label_keyword,) if label_keyword else ())
        return header_of(ds, b"bytes", label_keyword=label_keyword)

    return read


@pytest.mark.parametrize(
    ("stated", "born", "day", "age"),
    [
        ("045Y", None, None, 45),
        ("018M", None, None, 1),
        ("003W", None, None, 0),
        ("010D", None, None, 0),
        ("45", None, None, 45),
        (None, "19700615", "20200614", 49),
        (None, "19700615", "20200615", 50),
        ("045Y", "19000101", "20200101", 45),
        (None, "19700615", None, None),
        ("old", None, None, None),
        ("999Y", None, None, None),
        (None, "20300101", "20200101", None),
        (None, None, None, None),
    ],
)
def test_age(header, stated, born, day, age):
    assert header(PatientAge=stated, PatientBirthDate=born, StudyDate=day).age == age


@pytest.mark.parametrize(
    ("value", "position"),
    [
        ("PA", ViewPosition.PA),
        ("ap", ViewPosition.AP),
        ("LL", ViewPosition.LATERAL),
        ("LATERAL", ViewPosition.LATERAL),
        ("RAO", ViewPosition.UNKNOWN),
        (None, ViewPosition.UNKNOWN),
    ],
)
def test_view_position(header, value, position):
    assert header(ViewPosition=value).position == position


def test_view_position_from_its_code(header):
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "272479007", "SCT", "postero-anterior"
    assert header(ViewCodeSequence=Sequence([code])).position == ViewPosition.PA


@pytest.mark.parametrize(("value", "sex"), [("F", "F"), ("m", "M"), ("O", "O"), ("X", "U"), (None, "U")])
def test_sex(header, value, sex):
    assert header(PatientSex=value).sex == Sex(sex)


def test_study_year_falls_back_to_other_dates(header):
    assert header(StudyDate="20191231").study_year == 2019
    assert header(ContentDate="20180101").study_year == 2018
    assert header(StudyDate="").study_year is None


def test_device_has_no_serial_number(header):
    read = header(Manufacturer="ACME", ManufacturerModelName="Ray <3>", DeviceSerialNumber="SN77", StationName="ROOM5")
    assert read.device == "ACME Ray 3"


def test_label_attribute(header):
    assert header("StudyDescription", StudyDescription="Pneumonia|Mass").label == "Pneumonia|Mass"
    assert header("ImageComments", ImageComments=None).label is None
    assert header("ImageType", ImageType=["ORIGINAL", "PRIMARY"]).label == "ORIGINAL|PRIMARY"


@pytest.mark.parametrize(
    ("character_set", "one", "two"),
    [
        ("ISO_IR 192", b"M\xdc1", b"M\xd61"),  # Latin 1, and says that it is UTF-8
        ("ISO 2022 IR 87", b"M\xdc1", b"M\xd61"),
        ("ISO_IR 13", b"12\\A", b"12\\B"),  # a yen sign to its writer
        ("ISO_IR 192", b"12\\A", b"12\\B"),
        ("ISO_IR 192", b"\\A", b"\\B"),
        ("GBK", b"\x81\x5c1", b"\x81\x5c2"),
        ("NONSENSE", b"M\xdc1", b"M\xd61"),
    ],
)
def test_identifiers_that_differ_stay_two(make_dicom, character_set, one, two):
    def patient(written):
        place = b"Q" * (len(written) + len(written) % 2)
        file = make_dicom(SpecificCharacterSet=character_set, PatientID=place.decode())
        assert file.count(place) == 1
        content = file.replace(place, written.ljust(len(place)))
        return header_of(dataset_of(content), content).patient_id

    assert patient(one) != patient(two)
    assert patient(one) == patient(one) != ""


def test_identifier_with_a_backslash_is_all_of_it(header):
    assert header(PatientID="12\\A").patient_id == "12\\A"


def test_repr_shows_no_identifier(header):
    assert "P1" not in repr(header(AccessionNumber="A77"))
    assert "A77" not in repr(header(AccessionNumber="A77"))
