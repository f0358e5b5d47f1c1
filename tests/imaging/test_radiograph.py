"""The pixel pipeline against values computed by hand from the standard's formulas, and its refusals."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from silo_app.errors import ImageUnsupported
from silo_app.imaging import parse
from silo_app.imaging.codestream import check_codestream
from silo_app.imaging.radiograph import read_radiograph

GREY = 1 / 255
JPEG2000 = "1.2.840.10008.1.2.4.90"
MPEG2 = "1.2.840.10008.1.2.4.100"


@pytest.fixture
def shown(make_dicom):
    """The radiograph's pixels of a dataset given by keywords."""
    return lambda *args, **kwargs: read_radiograph(make_dicom(*args, **kwargs)).pixels


@pytest.fixture
def refused(make_dicom):
    def reason(*args, **kwargs):
        with pytest.raises(ImageUnsupported) as caught:
            read_radiograph(make_dicom(*args, **kwargs))
        assert caught.value.remedy
        return caught.value.reason

    return reason


def ramp(bits=12, side=64):
    """Every stored value there is, in order, as (side, side)."""
    return np.linspace(0, (1 << bits) - 1, side * side).reshape(side, side).astype(np.uint16)


def lut(values, *, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(values) % 65536, first, bits]
    item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    return Sequence([item])


def test_linear_window_follows_the_standards_formula(shown):
    pixels = ramp()
    expected = np.clip((pixels - (2048 - 0.5)) / (1000 - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(shown(pixels, WindowCenter=2048, WindowWidth=1000), expected, atol=1e-6)


def test_linear_exact_window_follows_the_standards_formula(shown):
    pixels = ramp()
    got = shown(pixels, WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(got, np.clip((pixels - 2048.0) / 1000 + 0.5, 0, 1), atol=1e-6)


def test_sigmoid_window_follows_the_standards_formula(shown):
    pixels = ramp().astype(float)
    got = shown(ramp(), WindowCenter=2048, WindowWidth=1000, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-4 * (pixels - 2048) / 1000)), atol=1e-6)


def test_window_of_width_one_is_a_threshold(shown):
    got = shown(ramp(), WindowCenter=2048, WindowWidth=1)
    assert set(np.unique(got)) == {0.0, 1.0}
    np.testing.assert_array_equal(got, ramp() > 2047.5)


def test_window_applies_to_rescaled_values(shown):
    pixels = ramp()
    got = shown(pixels, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=2001)
    np.testing.assert_allclose(got, np.clip((pixels * 2.0 - 1000 - 2999.5) / 2000 + 0.5, 0, 1), atol=1e-6)


def test_first_of_several_windows_is_used(shown):
    np.testing.assert_array_equal(
        shown(ramp(), WindowCenter=[1000, 3000], WindowWidth=[500, 900]),
        shown(ramp(), WindowCenter=1000, WindowWidth=500),
    )


def test_voi_lut_goes_before_a_window_and_starts_at_its_first_value(shown):
    pixels = ramp()
    table = np.rint(np.sqrt(np.arange(2000) / 1999) * 65535)
    got = shown(pixels, VOILUTSequence=lut(table, first=1000), WindowCenter=1, WindowWidth=1)
    expected = table[np.clip(pixels.astype(int) - 1000, 0, 1999)] / 65535
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_voi_lut_of_signed_values_may_start_below_zero(shown):
    pixels = ramp().astype(np.int32) - 2048
    table = np.arange(4096) * 16
    item = lut(table, first=0)
    item[0]["LUTDescriptor"].VR = "SS"
    item[0].LUTDescriptor = [4096, -2048, 16]
    got = shown(pixels, signed=True, VOILUTSequence=item)
    np.testing.assert_allclose(got, table[pixels + 2048] / 65535, atol=1e-6)


def test_modality_lut_goes_before_the_window(shown):
    pixels = ramp()
    table = np.arange(4096)[::-1] * 4
    item = lut(table)
    item[0].ModalityLUTType = "US"
    got = shown(pixels, ModalityLUTSequence=item, WindowCenter=8192, WindowWidth=10001)
    np.testing.assert_allclose(got, np.clip((table[pixels] - 8191.5) / 10000 + 0.5, 0, 1), atol=1e-6)


def test_without_a_window_the_robust_range_is_shown(shown):
    pixels = (ramp(10) + 1000).astype(np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, 4095  # two dead pixels do not set the contrast
    got = shown(pixels)
    low, high = np.quantile(pixels, [0.005, 0.995])
    np.testing.assert_allclose(got, np.clip((pixels - low) / (high - low), 0, 1), atol=5e-3)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": 2048, "WindowWidth": 0},
        {"WindowCenter": 2048},
        {"WindowCenter": 60000, "WindowWidth": 100},
        {"WindowCenter": 2048, "WindowWidth": 100, "VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": lut([7])},
    ],
    ids=["no width", "half a window", "beside all pixels", "unknown function", "table of one"],
)
def test_window_that_shows_nothing_is_not_used(shown, window):
    np.testing.assert_array_equal(shown(ramp(), **window), shown(ramp()))


@pytest.mark.parametrize(
    ("two", "one"),
    [
        ({}, {}),
        ({"WindowCenter": 1800, "WindowWidth": 1500}, {"WindowCenter": 4095 - 1800 + 1, "WindowWidth": 1500}),
        (
            {"VOILUTSequence": lut(np.arange(4096) ** 2 // 256)},
            {"VOILUTSequence": lut(65535 - np.arange(4096)[::-1] ** 2 // 256)},
        ),
        (
            {"WindowCenter": 1800, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
            {"WindowCenter": 4095 - 1800, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        ),
    ],
    ids=["no window", "window", "table", "sigmoid"],
)
@pytest.mark.parametrize("shape", [None, "INVERSE"], ids=["CR", "DX"])
def test_monochrome1_copy_gives_the_same_radiograph(shown, make_picture, two, one, shape):
    pixels = make_picture(700, 600)
    second = shown(pixels, **two, PresentationLUTShape=shape and "IDENTITY")
    first = shown(4095 - pixels, PhotometricInterpretation="MONOCHROME1", **one, PresentationLUTShape=shape)
    assert second.std() > 0.1
    np.testing.assert_allclose(first, second, atol=GREY / 10)


def test_presentation_shape_inverse_alone_inverts(shown):
    np.testing.assert_allclose(
        shown(ramp(), PresentationLUTShape="INVERSE", WindowCenter=2048, WindowWidth=4096),
        1 - shown(ramp(), WindowCenter=2048, WindowWidth=4096),
        atol=1e-6,
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(shown, make_picture, photometric):
    pixels = make_picture(64, 64, bits=11) + 100
    clean = shown(pixels[:, 16:], PhotometricInterpretation=photometric)
    pixels[:, :16] = 4000
    got = shown(pixels, PhotometricInterpretation=photometric, PixelPaddingValue=4000)
    np.testing.assert_allclose(got[:, 16:], clean, atol=1e-6)
    assert (got[:, :16] == 0).all()


def test_padding_range_of_signed_pixels(shown, make_picture):
    pixels = make_picture(64, 64, bits=11).astype(np.int32) - 1000
    clean = shown(pixels[8:], signed=True)
    pixels[:4], pixels[4:8] = -2048, -2040
    got = shown(pixels, signed=True, PixelPaddingValue=-2048, PixelPaddingRangeLimit=-2040)
    np.testing.assert_allclose(got[8:], clean, atol=1e-6)
    assert (got[:8] == 0).all()


def test_padding_is_left_out_of_the_averages(shown):
    pixels = np.full((1024, 1024), 2000, np.uint16)
    pixels[:, ::2] = 1000
    pixels[:, 512:] = 4095
    pixels[:, 511] = 4095  # half of one reduced column
    got = shown(pixels, PixelPaddingValue=4095, WindowCenter=1500, WindowWidth=1001)
    assert got.shape == (512, 512)
    np.testing.assert_allclose(got[:, 254], 0.5, atol=2e-3)
    np.testing.assert_allclose(got[:, 255], 0.0, atol=2e-3)  # of its two columns only the 1000 is no padding
    assert (got[:, 256:] == 0).all()


def test_overlay_bits_beside_the_stored_ones_are_ignored(shown, make_picture):
    pixels = make_picture()
    np.testing.assert_array_equal(shown(pixels | 0xF000), shown(pixels))


def test_stored_bits_that_are_not_the_lowest(shown, make_picture):
    pixels = make_picture()
    np.testing.assert_array_equal(shown(pixels << 4, HighBit=15), shown(pixels))


def test_stored_bits_that_are_not_the_lowest_of_words_in_rle(make_dataset, encode_dicom, make_picture):
    pixels = make_picture()
    ds = make_dataset(pixels << 4, bits=16)
    ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    ds.BitsStored = 12
    expected = read_radiograph(encode_dicom(make_dataset(pixels))).pixels
    np.testing.assert_array_equal(read_radiograph(encode_dicom(ds)).pixels, expected)


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
def test_depth_does_not_change_the_picture(shown, bits):
    reference = shown(ramp(16), bits=16, WindowCenter=32768, WindowWidth=65536)
    center = 1 << (bits - 1)
    got = shown(ramp(16) >> (16 - bits), bits=bits, WindowCenter=center, WindowWidth=2 * center)
    np.testing.assert_allclose(got, reference, atol=1 / (1 << bits) + 1e-6)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_native_transfer_syntaxes_agree(make_dataset, encode_dicom, make_picture, syntax):
    ds = make_dataset(make_picture(), TransferSyntaxUID=syntax)
    expected = read_radiograph(encode_dicom(make_dataset(make_picture()))).pixels
    np.testing.assert_array_equal(read_radiograph(encode_dicom(ds)).pixels, expected)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"])
def test_lossless_transfer_syntaxes_agree(make_dataset, encode_dicom, make_picture, syntax):
    ds = make_dataset(make_picture())
    expected = read_radiograph(encode_dicom(ds)).pixels
    ds.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_radiograph(encode_dicom(ds)).pixels, expected)


def test_file_without_the_part_10_prefix_is_read(make_dataset, make_picture):
    ds = make_dataset(make_picture())
    del ds.file_meta
    file = io.BytesIO()
    ds.save_as(file, implicit_vr=True, little_endian=True)
    assert read_radiograph(file.getvalue()).pixels.shape == (64, 48)


def test_optional_attributes_are_not_required(shown):
    bare = dict.fromkeys(("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientName"))
    assert shown(**bare, HighBit=None).shape == (64, 48)
    assert shown(Modality=None).shape == (64, 48)


def test_reduction_keeps_the_mean_and_the_aspect(make_dicom, make_picture):
    pixels = make_picture(1501, 1003)
    radiograph = read_radiograph(make_dicom(pixels, WindowCenter=2048, WindowWidth=4096, PixelSpacing=[0.2, 0.2]))
    assert radiograph.pixels.shape == (512, 342)
    assert radiograph.pixels.mean() == pytest.approx((pixels / 4095).mean(), abs=2e-3)
    assert radiograph.spacing_mm == pytest.approx(0.2 * 1501 / 512)


def test_pixels_that_are_not_square_become_square(make_dicom, make_picture):
    radiograph = read_radiograph(make_dicom(make_picture(100, 200), ImagerPixelSpacing=[0.4, 0.2]))
    assert radiograph.pixels.shape == (100, 100)
    assert radiograph.spacing_mm == pytest.approx(0.4)


def test_small_image_is_not_enlarged_and_nonsense_spacing_is_ignored(make_dicom, make_picture):
    radiograph = read_radiograph(make_dicom(make_picture(100, 60), PixelSpacing=[0, -1]))
    assert radiograph.pixels.shape == (100, 60)
    assert radiograph.spacing_mm is None


@pytest.mark.parametrize(
    ("reason", "attributes"),
    [
        ("not-an-x-ray", {"Modality": "CT"}),
        ("not-an-x-ray", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}),
        ("not-an-x-ray", {"Modality": "MG"}),
        ("for-processing", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1", "Modality": "DX"}),
        ("for-processing", {"PresentationIntentType": "FOR PROCESSING", "Modality": "DX"}),
        ("secondary-capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("secondary-capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}),
        ("colour", {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
        ("colour", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("multi-frame", {"NumberOfFrames": 12}),
        ("no-pixels", {"PixelData": None}),
        ("bad-geometry", {"Rows": 0}),
        ("bad-geometry", {"Columns": 3}),
        ("bad-geometry", {"BitsStored": 17}),
        ("bad-geometry", {"BitsAllocated": 12}),
        ("bad-geometry", {"PhotometricInterpretation": None}),
        ("wrong-vr", {"Rows": None}),
        ("wrong-vr", {"BitsAllocated": None}),
        ("truncated", {"Rows": 4000, "Columns": 4000}),
        ("too-large", {"Rows": 65535, "Columns": 65535}),
        ("too-large", {"Rows": 30000}),
        ("unsupported-transfer-syntax", {"TransferSyntaxUID": MPEG2, "PixelData": encapsulate([b"xx"])}),
        ("decode-failed", {"TransferSyntaxUID": JPEG2000, "PixelData": encapsulate([b"nothing"])}),
    ],
)
def test_what_is_not_a_presentable_radiograph_is_refused(refused, reason, attributes):
    assert refused(**attributes) == reason


def test_blank_image_is_refused(refused):
    assert refused(np.full((64, 64), 1234, np.uint16)) == "blank"


def test_modality_of_film_radiography_is_taken(shown):
    assert shown(Modality="RG").shape == (64, 48)


@pytest.mark.parametrize(
    "content", [b"", b"x" * 10, b"patient,finding\n1,none\n", b"\x89PNG" + b"\0" * 200, b"\0" * 500], ids=repr
)
def test_other_files_are_not_dicom(content):
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(content)
    assert caught.value.reason == "not-dicom"


def test_rows_written_as_text_are_read_or_refused_but_never_raise(make_dicom):
    content = make_dicom()
    broken = content.replace(b"\x28\x00\x10\x00US\x02\x00\x40\x00", b"\x28\x00\x10\x00LO\x02\x00ab")
    assert broken != content
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(broken)
    assert caught.value.reason == "wrong-vr"


@pytest.mark.parametrize("marker", [0x00, 0x02, 0xBF])
def test_a_jpeg_whose_headers_have_no_marker_is_not_given_to_a_decoder(marker):
    """GDCM ends the process on one whose Huffman table's marker was damaged; found by `benchmarks.fuzz`."""
    frame = (
        bytes.fromhex("ffd8 ffc3000b100028002201011100")
        + bytes([0xFF, marker])
        + bytes.fromhex(
            "001e00000300030101010101000000000000000607080405090302010 00f ffda0008010100010000 ff0008 ffd9".replace(" ", "")
        )
    )
    with pytest.raises(ImageUnsupported) as raised:
        check_codestream(encapsulate([frame]), 40, 34)
    assert raised.value.reason == "decode-failed"
    whole = frame.replace(bytes([0xFF, marker, 0x00, 0x1E]), b"\xff\xc4\x00\x1e")
    check_codestream(encapsulate([whole]), 40, 34)


def test_compressed_size_that_contradicts_the_header_is_refused(make_dataset, encode_dicom):
    ds = make_dataset()
    ds.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    ds.Rows = 65
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(encode_dicom(ds))
    assert caught.value.reason == "bad-geometry"


def test_deflated_bomb_is_refused_before_it_unfolds(make_dataset, encode_dicom, monkeypatch):
    monkeypatch.setattr(parse, "MAX_FILE_BYTES", 4 << 20)
    content = encode_dicom(make_dataset(TransferSyntaxUID="1.2.840.10008.1.2.1.99"))
    end = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = content[:end] + b"".join(packer.compress(zeros) for _ in range(8)) + packer.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(bomb)
    assert caught.value.reason == "too-large"


def test_missing_file_is_unreadable(tmp_path):
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(tmp_path / "no.dcm")
    assert caught.value.reason == "unreadable"
    assert str(tmp_path) in str(caught.value)


def test_refusals_do_not_quote_the_header(make_dicom):
    with pytest.raises(ImageUnsupported) as caught:
        read_radiograph(make_dicom(PatientName="Secretname", PatientID="Secretid", Rows=1))
    assert "Secret" not in str(caught.value)


def test_every_truncation_is_refused_or_read(make_dicom, make_picture):
    content = make_dicom(make_picture(16, 16), PixelSpacing=[0.2, 0.2], VOILUTSequence=lut(np.arange(64)))
    for length in range(len(content) - 1):
        with pytest.raises(ImageUnsupported):
            read_radiograph(content[:length])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(make_dataset, encode_dicom, make_picture, data):
    ds = make_dataset(make_picture(32, 32), PixelSpacing=[0.2, 0.2], WindowCenter=9, WindowWidth=5, SOPInstanceUID="1.2")
    ds.StudyInstanceUID = ds.SeriesInstanceUID = "1.2"
    if data.draw(st.booleans()):
        syntax = data.draw(st.sampled_from(["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"]))
        ds.compress(syntax, generate_instance_uid=False)
    content = bytearray(encode_dicom(ds))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = read_radiograph(bytes(content)).pixels
    except ImageUnsupported:
        return
    assert pixels.dtype == np.float32
    assert np.isfinite(pixels).all()
    assert 0 <= pixels.min() <= pixels.max() <= 1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_behind_a_dicom_prefix_never_raise_anything_else(content):
    with pytest.raises(ImageUnsupported):
        read_radiograph(b"\0" * 128 + b"DICM" + content)


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_genuine_monochrome1_radiographs_show_bone_bright(name):
    """A chest and a leg of pydicom-data: bone and mediastinum bright, air dark; native equals JPEG 2000."""
    data = pytest.importorskip("data_store")
    folder = Path(data.__file__).parent / "data"
    native = read_radiograph(next(folder.rglob(f"{name}_UNCR.dcm"))).pixels
    packed = read_radiograph(next(folder.rglob(f"{name}_J2KR.dcm"))).pixels
    np.testing.assert_array_equal(native, packed)
    if name == "RG1":
        lung, spine = native[120:170, 120:170], native[200:300, 225:260]
        assert spine.mean() > lung.mean() + 0.2
    else:
        bone, air = native[100:250, 240:255], native[100:250, 150:170]
        assert bone.mean() > air.mean() + 0.4
