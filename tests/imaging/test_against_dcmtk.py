"""Polarity, window and tables against another reader of DICOM, DCMTK's dcmj2pnm: at most one grey level of 8 bits apart.

DCMTK's pictures are full-size bytes; ours are compared with them pixel by pixel before the reduction, and as area
averages after it. Debian's DCMTK decodes no JPEG 2000: there the native twin of the same radiograph is its input.
"""

import io
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from silo_app.errors import ImageUnsupported
from silo_app.imaging.grayscale import display_curve, stored_format
from silo_app.imaging.occurring import Occurring
from silo_app.imaging.parse import dataset_of
from silo_app.imaging.radiograph import read_radiograph
from silo_app.imaging.stored import stored_pixels

CR = "1.2.840.10008.5.1.4.1.1.1"
needs_dcmtk = pytest.mark.skipif(not shutil.which("dcmj2pnm"), reason="needs dcmtk")


@pytest.fixture(scope="module")
def genuine():
    """The folder of pydicom-data."""
    return Path(pytest.importorskip("data_store", reason="needs pydicom-data").__file__).parent / "data"


@pytest.fixture
def shown_by_dcmtk(tmp_path):
    """Return DCMTK's picture of a file, int (rows, columns) in 0-255."""

    def shown(content, *options):
        file, picture = tmp_path / "in.dcm", tmp_path / "out.pgm"
        file.write_bytes(content)
        subprocess.run(["dcmj2pnm", "-O", *options, file, picture], check=True, capture_output=True, timeout=60)
        with Image.open(io.BytesIO(picture.read_bytes())) as image:
            return np.asarray(image).astype(int)

    return shown


def full_size(content):
    """Our picture before the reduction, int (rows, columns) in 0-255."""
    ds = dataset_of(content)
    stored = stored_format(ds)
    index = stored_pixels(ds, stored).index
    return np.rint(display_curve(ds, stored, Occurring(index, stored.bits, None))[index] * 255).astype(int)


def averaged(pixels, shape):
    """Area averages, the plain way: each pixel repeated, then means of equal blocks."""
    for axis, count in enumerate(shape):
        shares = np.zeros((count, pixels.shape[axis]))
        scale = pixels.shape[axis] / count
        for place in range(count):
            edges = np.clip(np.arange(pixels.shape[axis] + 1), place * scale, (place + 1) * scale)
            shares[place] = np.diff(edges) / scale
        pixels = np.tensordot(shares, pixels, (1, axis)).swapaxes(0, axis)
    return pixels


def as_radiograph(path, **attributes):
    """The file as a CR image: pydicom-data's tables are in files of other kinds, which a silo refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CR
        ds.Modality = "CR"
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        for keyword in ("ConversionType", "OverlayData"):
            ds.pop(keyword, None)
        file = io.BytesIO()
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


@needs_dcmtk
@pytest.mark.parametrize("name", ["RG1", "RG3"])
@pytest.mark.parametrize("kind", ["UNCR", "UNCI"])
def test_genuine_radiographs_look_the_same(genuine, shown_by_dcmtk, name, kind):
    content = (genuine / f"{name}_{kind}.dcm").read_bytes()
    theirs = shown_by_dcmtk(content, "+Wi", "1")
    assert np.abs(full_size(content) - theirs).max() <= 1
    ours = read_radiograph(content).pixels
    assert np.abs(ours * 255 - averaged(theirs, ours.shape)).max() <= 1


@needs_dcmtk
@pytest.mark.parametrize("name", ["RG1", "RG3"])
@pytest.mark.parametrize(("packed", "native"), [("J2KR", "UNCR"), ("J2KI", "UNCI")], ids=["lossless", "lossy"])
def test_jpeg_2000_looks_as_the_native_twin_does(genuine, shown_by_dcmtk, name, packed, native):
    ours = read_radiograph(genuine / f"{name}_{packed}.dcm").pixels
    theirs = shown_by_dcmtk((genuine / f"{name}_{native}.dcm").read_bytes(), "+Wi", "1")
    assert np.abs(ours * 255 - averaged(theirs, ours.shape)).max() <= 1


@needs_dcmtk
@pytest.mark.parametrize(
    ("name", "option", "attributes"),
    [("vlut_04", "+Wl", {}), ("mlut_18", "+Wi", {"WindowCenter": 1800, "WindowWidth": 2000})],
)
def test_genuine_tables_give_the_same_picture(genuine, shown_by_dcmtk, name, option, attributes):
    content = as_radiograph(genuine / f"{name}.dcm", **attributes)
    assert np.abs(full_size(content) - shown_by_dcmtk(content, option, "1")).max() <= 1


@needs_dcmtk
@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 2000, "WindowWidth": 3000},
        {"WindowCenter": 2000.5, "WindowWidth": 777},
        {"WindowCenter": 3000, "WindowWidth": 3001, "RescaleSlope": 2, "RescaleIntercept": -1000},
        {"WindowCenter": 2000, "WindowWidth": 1500, "PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": 2000, "WindowWidth": 1500, "PresentationLUTShape": "INVERSE"},
        {"WindowCenter": 2000, "WindowWidth": 1500, "PresentationLUTShape": "IDENTITY"},
        {
            "WindowCenter": 2000,
            "WindowWidth": 1500,
            "PhotometricInterpretation": "MONOCHROME1",
            "PresentationLUTShape": "INVERSE",
        },
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "SIGMOID"},
    ],
    ids=["window", "odd window", "rescaled", "MONOCHROME1", "INVERSE", "IDENTITY", "MONOCHROME1 INVERSE", "sigmoid"],
)
def test_windows_and_polarity_agree(make_dicom, make_picture, shown_by_dcmtk, attributes):
    content = make_dicom(make_picture(200, 160), **attributes)
    options = ("+Wfs",) if attributes.get("VOILUTFunction") == "SIGMOID" else ()
    assert np.abs(full_size(content) - shown_by_dcmtk(content, "+Wi", "1", *options)).max() <= 1


@needs_dcmtk
@pytest.mark.parametrize(
    ("command", "bits"),
    [
        (["dcmcjpeg", "+e1"], 12),
        (["dcmcjpeg", "+el"], 12),
        (["dcmcjpls", "+el"], 12),
        (["dcmcrle"], 12),
        (["dcmconv", "+tb"], 12),
        (["dcmconv", "+td"], 12),
        (["dcmcjpeg", "+e1"], 8),
        (["dcmcjpls", "+el"], 8),
        (["dcmconv", "+tb"], 8),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else str(part),
)
def test_files_packed_by_dcmtk_give_the_same_radiograph(tmp_path, make_dicom, make_picture, command, bits):
    native = make_dicom(make_picture(90, 70, bits=bits), bits=bits, WindowCenter=100, WindowWidth=150)
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(native)
    subprocess.run([*command, plain, packed], check=True, capture_output=True, timeout=60)
    np.testing.assert_array_equal(read_radiograph(packed).pixels, read_radiograph(plain).pixels)


@needs_dcmtk
def test_jpeg_baseline_of_dcmtk_is_close_to_the_original(tmp_path, make_dicom, make_picture):
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(make_dicom(make_picture(90, 70, bits=8), bits=8, WindowCenter=128, WindowWidth=256))
    subprocess.run(["dcmcjpeg", "+eb", "+q", "98", plain, packed], check=True, capture_output=True, timeout=60)
    assert np.abs(read_radiograph(packed).pixels - read_radiograph(plain).pixels).mean() < 2 / 255


@needs_dcmtk
def test_jpeg_extended_of_12_bits_is_refused_with_its_reason(tmp_path, make_dicom, make_picture):
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    plain.write_bytes(make_dicom(make_picture(90, 70)))
    subprocess.run(["dcmcjpeg", "+ee", plain, packed], check=True, capture_output=True, timeout=60)
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(packed)
    assert caught.value.reason == "unsupported-transfer-syntax"


def test_overlays_do_not_change_the_picture(make_dataset, encode_dicom, make_picture):
    pixels = make_picture(64, 48)
    plain = read_radiograph(encode_dicom(make_dataset(pixels))).pixels
    ds = make_dataset(pixels)
    ds.add_new((0x6000, 0x0010), "US", 64)
    ds.add_new((0x6000, 0x0011), "US", 48)
    ds.add_new((0x6000, 0x0040), "CS", "G")
    ds.add_new((0x6000, 0x0050), "SS", [1, 1])
    ds.add_new((0x6000, 0x0100), "US", 1)
    ds.add_new((0x6000, 0x0102), "US", 0)
    ds.add_new((0x6000, 0x3000), "OW", b"\xff" * (64 * 48 // 8))
    np.testing.assert_array_equal(read_radiograph(encode_dicom(ds)).pixels, plain)
