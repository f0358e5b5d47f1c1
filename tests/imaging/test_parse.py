"""Parsing says nothing to logs or stderr about what it reads."""

import logging

import pytest

from silo_app.errors import ImageUnsupported
from silo_app.imaging.header import header_of
from silo_app.imaging.parse import dataset_of, quiet
from silo_app.imaging.radiograph import read_radiograph


def test_broken_identifiers_reach_neither_logs_nor_stderr(make_dicom, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    content = make_dicom(
        PatientBirthDate="SECRETBIRTH",
        StudyDate="SECRETDATE",
        PatientAge="SECRETAGE",
        StudyInstanceUID="SECRET..UID",
        WindowCenter=1,
        SpecificCharacterSet="SECRETSET",
    )
    header_of(dataset_of(content), content)
    read_radiograph(content)
    for cut in (200, 600, len(content) - 10):
        with pytest.raises(ImageUnsupported):
            read_radiograph(content[:cut])
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_pydicoms_loggers_stay_silent_even_with_a_handler_at_the_root(caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pydicom.pixels.decoders.base").error("SECRET")
    assert caplog.records == []


def test_quiet_gives_back_the_filters():
    import warnings

    before = list(warnings.filters)
    with quiet():
        pass
    assert list(warnings.filters) == before


def test_only_what_is_used_is_kept(make_dicom):
    ds = dataset_of(make_dicom(PatientName="X^Y", InstitutionName="Z"), also=("ImageComments",))
    assert not {"PatientName", "InstitutionName"} & set(ds.dir())
