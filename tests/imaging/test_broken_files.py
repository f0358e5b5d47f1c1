"""A corpus of broken and hostile files: each is refused with a reason, in bounded time and memory, by a real worker."""

import json
import struct
import zlib
from pathlib import Path

import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence

from silo_app.imaging.pool import _start
from silo_app.imaging.refusal import RefusalReason
from silo_app.imaging.worker import UNEXPECTED

SECONDS = 5.0
"""Processor time: a broken file takes no longer; the slowest of the corpus unfolds 256 MiB."""
PEAK_MB = 1300
"""What a worker may have used at its peak: the 256 MiB that a file may have, unfolded, in the pieces and joined."""

RLE, JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
DEFLATED = "1.2.840.10008.1.2.1.99"
LONG_VRS = {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"}


class Worker:
    """The production worker, spoken to directly so that its memory can be read."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        self.process = _start()
        assert self.process.stdout.readline() == b"ready\n"

    def decode(self, content):
        path = self.folder / "file.dcm"
        path.write_bytes(content)
        request = {"path": str(path), "cache": str(self.folder / "cache"), "content_key": "ab" * 32, "seconds": 60}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.end()
            self.start()
            pytest.fail("the worker died")
        return json.loads(line)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    @property
    def busy_seconds(self):
        """Processor time, which other work on the machine does not change."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    @property
    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = Worker(tmp_path_factory.mktemp("broken"))
    yield worker
    worker.end()


@pytest.fixture
def refuse(worker):
    """Return the reason that the worker refuses a file for, having measured time and memory."""

    def reason(content):
        before = worker.busy_seconds
        reply = worker.decode(content)
        assert worker.busy_seconds - before < SECONDS
        assert worker.peak_mb < PEAK_MB
        assert reply.get("detail") or "digest" in reply
        assert not reply.get("detail", "").startswith(UNEXPECTED)
        return RefusalReason(reply["reason"]).value if "reason" in reply else "read"

    return reason


@pytest.fixture
def whole(make_dataset, encode_dicom, make_picture):
    """Return a sound file of a transfer syntax, with nested sequences."""

    def make(syntax=None, **attributes):
        inner, outer = Dataset(), Dataset()
        inner.CodeValue = "399348003"
        outer.ViewModifierCodeSequence = Sequence([inner])
        ds = make_dataset(make_picture(32, 32), ViewCodeSequence=Sequence([outer]), WindowCenter=9, WindowWidth=5)
        if syntax == DEFLATED:
            ds.file_meta.TransferSyntaxUID = DEFLATED
        elif syntax:
            ds.compress(syntax, generate_instance_uid=False)
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        return encode_dicom(ds)

    return make


def elements(content):
    """Yield (start, value start, length) of each element at the top, of an Explicit VR Little Endian file."""
    at = 132
    while at + 8 <= len(content):
        long = content[at + 4 : at + 6] in LONG_VRS
        start = at + (12 if long else 8)
        length = int.from_bytes(content[at + 8 : at + 12] if long else content[at + 6 : at + 8], "little")
        yield at, start, length
        if length == 0xFFFFFFFF:
            found = content.find(b"\xfe\xff\xdd\xe0\0\0\0\0", start)
            at = found + 8 if found > 0 else len(content)
        else:
            at = start + length


def with_length(content, start, value, length):
    """The file with another length in one element's header."""
    size = 2 if value - start == 8 else 4
    length &= (1 << 8 * size) - 1
    return content[: value - size] + length.to_bytes(size, "little") + content[value:]


@pytest.mark.parametrize("syntax", [None, RLE, JPEG_LS, JPEG_2000], ids=["native", "RLE", "JPEG-LS", "JPEG 2000"])
def test_truncated_at_every_structural_boundary(whole, refuse, syntax):
    content = whole(syntax)
    cuts = {0, 4, 127, 128, 131, 132}
    for start, value, length in elements(content):
        cuts |= {start, start + 2, start + 4, start + 6, value, value + min(length, len(content)) // 2}
    for mark in (b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"):  # items and delimiters
        at = content.find(mark)
        while at >= 0:
            cuts |= {at, at + 4, at + 8}
            at = content.find(mark, at + 1)
    reasons = {cut: refuse(content[:cut]) for cut in cuts if cut < len(content)}
    assert "read" not in reasons.values(), [cut for cut, reason in reasons.items() if reason == "read"]


def test_deflated_file_truncated_anywhere(whole, refuse):
    content = whole(DEFLATED)
    end = 144 + int.from_bytes(content[140:144], "little")
    for cut in (end, end + 1, end + 100, len(content) // 2, len(content) - 8):
        assert refuse(content[:cut]) != "read"


@pytest.mark.parametrize("syntax", [None, JPEG_2000], ids=["native", "JPEG 2000"])
@pytest.mark.parametrize("wrong", ["zero", "two more", "half", "all ones", "nearly all ones", "large"])
def test_wrong_length_of_every_element_ends_well(whole, refuse, syntax, wrong):
    content = whole(syntax)
    for start, value, length in list(elements(content)):
        lengths = {
            "zero": 0,
            "two more": length + 2,
            "half": length // 4 * 2,
            "all ones": 0xFFFFFFFF,
            "nearly all ones": 0xFFFFFFFE,
            "large": 0x7FFFFFF0,
        }
        refuse(with_length(content, start, value, lengths[wrong]))  # whatever it says, in time and in memory


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": 0}, "bad-geometry"),
        ({"Columns": 0}, "bad-geometry"),
        ({"Rows": 65535, "Columns": 65535}, "too-large"),
        ({"Rows": 16000, "Columns": 4000}, "truncated"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "bad-geometry"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bad-geometry"),
        ({"BitsAllocated": 64}, "bad-geometry"),
        ({"BitsAllocated": 65535, "BitsStored": 65535, "HighBit": 65534}, "bad-geometry"),
        ({"BitsStored": 0}, "bad-geometry"),
        ({"HighBit": 16}, "bad-geometry"),
        ({"HighBit": 3}, "bad-geometry"),
        ({"PixelRepresentation": 7}, "bad-geometry"),
        ({"NumberOfFrames": 2_000_000_000}, "multi-frame"),
        ({"NumberOfFrames": 0}, "multi-frame"),
        ({"SamplesPerPixel": 65535}, "colour"),
        ({"PhotometricInterpretation": "MONOCHROME3"}, "colour"),
    ],
    ids=str,
)
@pytest.mark.parametrize("syntax", [None, RLE, JPEG_2000], ids=["native", "RLE", "JPEG 2000"])
def test_absurd_numbers_are_refused(whole, refuse, attributes, reason, syntax):
    found = refuse(whole(syntax, **attributes))
    # Packed pixels are known to be of another size, or nothing, only by looking into them.
    assert found == reason or (syntax and reason == "truncated" and found in {"bad-geometry", "decode-failed"})


@pytest.mark.parametrize(
    "keyword", [b"\x28\x00\x10\x00", b"\x28\x00\x00\x01", b"\x28\x00\x02\x00", b"\x08\x00\x60\x00", b"\xe0\x7f\x10\x00"]
)
@pytest.mark.parametrize("vr", [b"AT", b"DS", b"FL", b"IS", b"LO", b"OB", b"PN", b"SQ", b"UI", b"UN", b"ZZ", b"\0\0"])
def test_wrong_vr_ends_well(whole, refuse, keyword, vr):
    content = whole()
    at = content.index(keyword)
    refuse(content[: at + 4] + vr + content[at + 6 :])


def test_sequences_nested_without_end_are_refused(whole, refuse):
    content = whole()
    at = content.index(b"\x28\x00\x02\x00US")  # before Samples per Pixel, in the order of tags
    nest = b"\x18\x00\x11\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    view = b"\x54\x00\x20\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"  # one that is kept and read
    for count in (100, 5_000, 200_000):
        assert refuse(content[:at] + nest * count) in {"not-dicom", "truncated"}
        assert refuse(content[:at] + nest * count + content[at:]) != "read"
        refuse(content[:at] + view * count + content[at:])


def test_a_sequence_that_holds_itself_ends_well(whole, refuse):
    """Bytes cannot be cyclic, but an item may claim to reach back over its own sequence's header."""
    content = whole()
    at = content.index(b"\x54\x00\x20\x02SQ")
    for length in (0xFFFFFFF0, 0x80000000, 0xFFFF, 8, 1):
        refuse(content[: at + 16] + struct.pack("<I", length) + content[at + 20 :])


def test_deflated_bomb_of_a_gigabyte_is_refused(whole, refuse):
    content = whole(DEFLATED)
    end = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = content[:end] + b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()
    assert len(bomb) < 2 << 20
    assert refuse(bomb) == "too-large"


@pytest.mark.parametrize("size", [(65535, 65535), (0, 32), (1 << 15, 32), (33, 32)], ids=str)
@pytest.mark.parametrize(("syntax", "marker"), [(JPEG_LS, b"\xff\xf7"), (JPEG_2000, b"\xff\x51")], ids=["LS", "2000"])
def test_packed_image_that_declares_another_size_is_refused(whole, refuse, syntax, marker, size):
    content = whole(syntax)
    at = content.rindex(marker)
    if syntax == JPEG_LS:
        broken = content[: at + 5] + struct.pack(">HH", *size) + content[at + 9 :]
    else:
        broken = content[: at + 6] + struct.pack(">II", size[1] * 30_000, size[0] * 30_000) + content[at + 14 :]
    assert refuse(broken) in {"bad-geometry", "decode-failed"}


@pytest.mark.parametrize(
    "frames",
    [
        b"",
        encapsulate([b"\0" * 64]),
        encapsulate([b"\0" * 62 + b"\xff\xff"]),
        b"\xfe\xff\x00\xe0\xff\xff\xff\x7f",
        b"\xfe\xff\x00\xe0\x04\0\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\x02\0\0\0ab",
        b"\xfe\xff\x00\xe0\0\0\0\0" * 50_000,
        b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x40\0\0\0" + struct.pack("<16I", 15, *[0xFFFFFFFF] * 15),
    ],
    ids=["none", "zeros", "noise", "endless item", "offset beyond", "many empty items", "RLE segments beyond"],
)
@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, JPEG_2000], ids=["RLE", "JPEG-LS", "JPEG 2000"])
def test_broken_encapsulation_is_refused(whole, refuse, make_dataset, encode_dicom, make_picture, syntax, frames):
    ds = make_dataset(make_picture(32, 32), TransferSyntaxUID=syntax, PixelData=encapsulate([b"frame"]))
    ds["PixelData"].is_undefined_length = True
    ds["PixelData"].VR = "OB"
    content = encode_dicom(ds)
    start = content.index(b"\xe0\x7f\x10\x00OB") + 12
    assert refuse(content[:start] + frames + b"\xfe\xff\xdd\xe0\0\0\0\0") != "read"


@pytest.mark.parametrize("value", [b"NaN ", b"inf ", b"-1e9", b"1e99", b"abcd", b"\\\\\\\\", b"\0\0\0\0", b"1,5 "])
@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth", "RescaleSlope", "PixelPaddingValue"])
def test_numbers_that_are_none_do_not_spoil_the_picture(make_dataset, encode_dicom, refuse, keyword, value):
    """A window is only welcome: without a usable one the image's own range is shown, and the file is read."""
    kinds = {"PixelPaddingValue": "US"}
    ds = make_dataset(WindowCenter=2000, WindowWidth=3000)
    ds.add_new(keyword, kinds.get(keyword, "DS"), 1111 if keyword in kinds else "1111")
    content = encode_dicom(ds)
    broken = content.replace(b"1111", value) if keyword not in kinds else content.replace(b"US\x02\0\x57\x04", b"LO\x02\0ab")
    assert broken != content
    assert refuse(broken) == "read"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda frame: frame.replace(b"\xff\xd9", b""), "truncated"),
        (lambda frame: frame[:13] + frame[14:], "decode-failed"),  # the next marker is where none is expected
        (lambda frame: frame[:6] + b"\xce" + frame[7:], "decode-failed"),
        (lambda frame: frame[:11] + b"\x03" + frame[12:], "decode-failed"),
    ],
    ids=["no end", "a byte lost", "206 bits a pixel", "three components"],
)
def test_jpeg_ls_that_its_decoder_would_hang_or_die_on_is_refused_before(
    refuse, make_dataset, encode_dicom, make_picture, broken, reason
):
    ds = make_dataset(make_picture(32, 32))
    ds.compress(JPEG_LS, generate_instance_uid=False)
    frame = broken(get_frame(ds.PixelData, 0, number_of_frames=1).rstrip(b"\0"))
    ds.PixelData = encapsulate([frame])
    assert refuse(encode_dicom(ds)) == reason


def test_half_a_million_elements_and_a_text_of_megabytes_end_in_time(whole, refuse):
    content = whole()
    at = content.index(b"\x28\x00\x02\x00US")
    tiny = b"".join(b"\x19\x10" + struct.pack("<H", number % 65536) + b"LO\0\0" for number in range(500_000))
    refuse(content[:at] + tiny + content[at:])
    name = b"\x20\x00\x0d\x00UI"
    start = content.index(name)
    text = b"\x20\x00\x0d\x00UT\0\0" + struct.pack("<I", 32 << 20) + b"1." * (16 << 20)
    refuse(content[:start] + text + content[start + 8 + content[start + 6] :])


@pytest.mark.parametrize("syntax", [b"", b"1.2.3", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2", b"\xff" * 19])
def test_wrong_transfer_syntax_ends_well(whole, refuse, syntax):
    content = whole()
    true = b"1.2.840.10008.1.2.1\0"
    assert content.count(true) == 1
    assert refuse(content.replace(true, syntax.ljust(len(true), b"\0"))) != "read" or syntax in {b"", b"1.2.840.10008.1.2"}
