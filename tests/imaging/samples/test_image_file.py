import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image

from silo_app.errors import ImageUnsupported
from silo_app.imaging.samples.image_file import decode, write_image
from silo_app.imaging.samples.image_plan import items
from silo_app.imaging.samples.records import Listing, Record


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("LA", "PNG"), ("grey RGB", "PNG"), ("1", "PNG"), ("L", "JPEG")])
def test_grey_images_decode_without_loss(make, mode, kind):
    content = make.picture(3, mode, kind)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("L"))
    decoded = decode(content)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected)


def test_sixteen_bits_stay_sixteen_bits(make):
    decoded = decode(make.picture(4, "I;16"))
    assert decoded.dtype == np.uint16
    assert decoded.max() > 255


def test_a_jpeg_of_equal_channels_is_grey(make):
    values = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.stack([values] * 3, axis=-1)).save(file, "JPEG", quality=80)
    assert decode(file.getvalue()).shape == (32, 32)


def huge_png():
    """Return a PNG whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda make: make.picture(1, "RGB"), "color"),
        (lambda make: make.picture(1)[:80], "damaged"),
        (lambda make: make.picture(1, "L", "JPEG", (300, 300))[:2000], "damaged"),
        (lambda make: b"GIF89a not allowed", "not-an-image"),
        (lambda make: make.picture(1, "L", "BMP"), "not-an-image"),
        (lambda make: b"", "not-an-image"),
        (lambda make: huge_png(), "damaged"),
    ],
)
def test_what_is_no_grey_image_is_refused_with_a_reason(make, content, reason):
    with pytest.raises(ImageUnsupported) as caught:
        decode(content(make))
    assert caught.value.reason == reason


@pytest.mark.parametrize(("mode", "kind", "bits"), [("L", "PNG", 8), ("I;16", "PNG", 16), ("grey RGB", "JPEG", 8)])
def test_the_file_holds_the_pixels_and_says_where_they_come_from(tmp_path, make, mode, kind, bits):
    content = make.picture(5, mode, kind, (21, 19))
    record = Record(set=0, file="images/x.png", patient="p/1", findings=None)
    (item,) = items([Listing((record,), (), {}, ())], ["children"], {(0, "p/1"): 0})
    write_image(content, record, item.identity, "children/images/x.png", tmp_path / "x.dcm")
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    np.testing.assert_array_equal(ds.pixel_array, decode(content))
    assert (ds.BitsStored, ds.BitsAllocated, ds.PhotometricInterpretation) == (bits, bits, "MONOCHROME2")
    assert "children/images/x.png" in ds.DerivationDescription
    assert ds.ConversionType == "DI"
    assert ("LossyImageCompression" in ds) == (kind == "JPEG")
    assert ds.PatientID.startswith("H")  # "p/1" is no plain name
