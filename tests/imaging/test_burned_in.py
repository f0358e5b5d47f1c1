"""Burned-in annotation: tags first, then what Tesseract reads; markers of a radiograph never refuse it."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from silo_app.catalogue import Catalogue
from silo_app.config import ImagingSettings
from silo_app.errors import NotReady
from silo_app.imaging import burned_in
from silo_app.imaging.burned_in import check_burned_in, check_reader, hints, read_text
from silo_app.imaging.identifying import kind_of
from silo_app.imaging.ingest import ingest

needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")


def written(text, *, value=4095, top=300, bottom=3000, size=48):
    """A picture that grows brighter or darker downwards, with some noise and `text` near its top, uint16 (1000, 900)."""
    image = Image.new("L", (900, 1000), 0)
    ImageDraw.Draw(image).text((40, 40), text, fill=255, font=ImageFont.load_default(size))
    ink = np.asarray(image, np.float32) / 255
    ground = np.linspace(top, bottom, 1000)[:, None] + np.random.default_rng(0).normal(0, 30, ink.shape)
    return np.clip(np.rint(ground + ink * (value - ground)), 0, 4095).astype(np.uint16)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("L", ""),
        ("R", ""),
        ("AP", ""),
        ("PA", ""),
        ("SUPINE", ""),
        ("Portable", ""),
        ("ERECT.", ""),
        ("LAT", ""),
        ("72", ""),
        ("110", ""),
        ("xrmtz", ""),
        ("17.03.2020", "date"),
        ("2020-03-17", "date"),
        ("3/17/20", "date"),
        ("17MAR2020", "date"),
        ("14:32", "time"),
        ("4711082", "number"),
        ("MRN4711", "number"),
        ("DOE^JANE", "word"),
        ("Müller", "word"),
        ("HOSPITAL", "word"),
    ],
)
def test_rule_of_what_identifies(text, kind):
    assert kind_of(text) == kind


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, ""),
        ({"BurnedInAnnotation": "NO"}, ""),
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation is YES"),
        ({"RecognizableVisualFeatures": "YES"}, "RecognizableVisualFeatures is YES"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "ImageType names a screenshot"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, ""),
        ({"ConversionType": "DF"}, ""),
    ],
)
def test_hints(make_dataset, attributes, why):
    assert hints(make_dataset(**attributes)) == why


@needs_tesseract
@pytest.mark.parametrize("ink", [(4095, 300, 3000), (0, 3500, 500)], ids=["bright", "dark"])
@pytest.mark.parametrize("text", ["JANE DOEFIELD", "17.03.1950", "ID 4711 0815", "St Anna Hospital"])
def test_identifying_text_is_found(make_dataset, text, ink):
    ds = make_dataset(written(text, value=ink[0], top=ink[1], bottom=ink[2]))
    why = check_burned_in(ds, ocr=True)
    assert why.startswith("text in the picture that may identify: ")
    assert not any(part in why for part in text.split())


@needs_tesseract
@pytest.mark.parametrize("text", ["L", "R", "SUPINE", "R  PORTABLE  AP SUPINE", "ERECT LAT"])
def test_markers_are_let_in(make_dataset, text):
    assert check_burned_in(make_dataset(written(text)), ocr=True) == ""


def test_reading_that_fails_is_a_reason(make_dataset, monkeypatch):
    monkeypatch.setattr(burned_in, "TESSERACT", "false")
    assert "did not end well (CalledProcessError)" in check_burned_in(make_dataset(), ocr=True)
    monkeypatch.setattr(burned_in, "TESSERACT", "no-such-program")
    assert "did not end well (FileNotFoundError)" in check_burned_in(make_dataset(), ocr=True)
    assert check_burned_in(make_dataset(), ocr=False) == ""


def test_reading_that_hangs_is_cut_off(monkeypatch, tmp_path):
    hanging = tmp_path / "hang"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o700)
    monkeypatch.setattr(burned_in, "TESSERACT", str(hanging))
    monkeypatch.setattr(burned_in, "SECONDS", 0.2)
    with pytest.raises(subprocess.TimeoutExpired):
        read_text(np.zeros((20, 20), np.float32))


def test_missing_reader_stops_an_ingest_before_it_takes_anything(monkeypatch):
    monkeypatch.setattr(burned_in, "TESSERACT", "no-such-program")
    check_reader(ImagingSettings())
    check_reader(ImagingSettings(ocr=True, burned_in="off"))
    with pytest.raises(NotReady, match="no tesseract"):
        check_reader(ImagingSettings(ocr=True))


def test_off_is_what_yaml_makes_of_it():
    assert ImagingSettings.model_validate({"burned_in": False}).burned_in == "off"


def looked_at(silo):
    with Catalogue.open(silo.catalogue) as catalogue:
        return sorted((view.burned_in for view in catalogue.views()), key=str)


def test_gate_of_an_ingest(make_silo, make_dicom, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "yes.dcm").write_bytes(make_dicom(BurnedInAnnotation="YES"))
    (source / "no.dcm").write_bytes(make_dicom())
    report = ingest(make_silo(), workers=1)
    assert [(r.path, r.reason, r.detail) for r in report.refused] == [
        ("yes.dcm", "burned-in-annotation", "BurnedInAnnotation is YES")
    ]
    report = ingest(make_silo(imaging={"burned_in": "warn"}), workers=1)  # another setting reads again
    assert (report.views, report.burned_in, report.refused) == (2, 1, ())
    assert looked_at(make_silo()) == [False, True]
    report = ingest(make_silo(imaging={"burned_in": False}), workers=1)
    assert (report.views, report.burned_in, report.refused) == (2, 0, ())
    assert looked_at(make_silo()) == [None, None], "nobody looked"
    report = ingest(make_silo(), workers=1)
    assert (report.views, report.removed) == (1, 1), "a stricter silo lets go of what it had taken"
