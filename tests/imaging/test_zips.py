"""Zip files as hospitals get them, and as an attacker makes them: each member by itself, in bounded time and memory."""

import errno
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from silo_app.errors import ImageUnsupported
from silo_app.imaging.ingest import ingest
from silo_app.imaging.sources import zips
from silo_app.imaging.sources.zips import extract


@pytest.fixture
def image(make_dicom, make_picture):
    return lambda seed=0, **fields: make_dicom(make_picture(24, 20, seed=seed), **fields)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir(exist_ok=True)
    return path


def packed(members, **options):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **options) as archive:
        for name, octets in members.items():
            archive.writestr(name, octets)
    return content.getvalue()


def encrypted(content):
    """Set the bit that says so in both headers of the first member."""
    changed = bytearray(content)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature) + place
        changed[at] |= 1
    return bytes(changed)


def refusals(report):
    return {refusal.path: refusal.reason for refusal in report.refused}


def test_members_are_taken_beside_files_and_again_only_if_changed(make_silo, source, image):
    first = image(1)
    (source / "a.zip").write_bytes(packed({"x/1.dcm": first, "2": image(2), "readme.txt": b"no image"}))
    (source / "3.dcm").write_bytes(image(3))
    home = make_silo()
    report = ingest(home, workers=1)
    assert (report.files, report.added) == (4, 3)
    assert refusals(report) == {"a.zip!/readme.txt": "not-dicom"}
    assert ingest(home, workers=1).unchanged == 4  # the refused one too
    (source / "a.zip").write_bytes(packed({"x/1.dcm": first}))
    report = ingest(home, workers=1)
    assert (report.views, report.removed) == (2, 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (encrypted, "unreadable"),
        (lambda content: content[:60] + bytes(40) + content[100:], "truncated"),
        (lambda content: content.replace(b"1.dcm", b"2.dcm", 1), "truncated"),
    ],
)
def test_a_damaged_or_encrypted_member_costs_itself(damage, reason, make_silo, source, image):
    (source / "bad.zip").write_bytes(damage(packed({"1.dcm": image(1)}, compression=zipfile.ZIP_DEFLATED)))
    (source / "good.zip").write_bytes(packed({"1.dcm": image(2)}))
    report = ingest(make_silo(), workers=1)
    assert report.added == 1
    assert list(refusals(report).values()) == [reason]


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 50])
def test_what_is_no_zip_is_refused_and_takes_nothing_away(content, make_silo, source, image):
    (source / "a.zip").write_bytes(packed({"1.dcm": image(1)}))
    (source / "2.dcm").write_bytes(image(2))
    home = make_silo()
    assert ingest(home, workers=1).views == 2
    (source / "a.zip").write_bytes(content)
    report = ingest(home, workers=1)
    assert report.removed == 0
    assert report.views == 2


@pytest.mark.parametrize("name", ["../outside.dcm", "/etc/outside.dcm", "a/../../outside.dcm", "C:\\outside.dcm", "a\x00b"])
def test_a_members_name_leads_nowhere(name, make_silo, source, image, tmp_path):
    (source / "a.zip").write_bytes(packed({name: image(1)}))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    home = make_silo()
    assert ingest(home, workers=1).added == 1
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert not [path for path in new if "outside" in path.name]


def test_a_link_among_the_members_is_not_followed(make_silo, source, image, tmp_path):
    (tmp_path / "secret.dcm").write_bytes(image(1))
    link = zipfile.ZipInfo("link.dcm")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(source / "a.zip", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret.dcm"))
    (source / "2.dcm").write_bytes(image(2))
    report = ingest(make_silo(), workers=1)
    assert report.added == 1
    assert refusals(report) == {"a.zip!/link.dcm": "not-dicom"}


def test_a_member_without_a_name_ends_nothing(make_silo, source, image):
    (source / "all.zip").write_bytes(packed({"1.dcm": image(seed=1)}))
    with zipfile.ZipFile(source / "all.zip", "a") as archive, archive.open(zipfile.ZipInfo(""), "w") as nameless:
        nameless.write(b"no image")
    report = ingest(make_silo(), workers=1)
    assert (report.views, refusals(report)) == (1, {"all.zip!/": "not-dicom"})


def test_what_cannot_be_unpacked_leaves_nothing_in_the_spool(tmp_path):
    content = bytearray(packed({"1.dcm": bytes(range(256)) * 40}))
    content[100] ^= 1  # its checksum is found wrong when all of it is unpacked
    (tmp_path / "all.zip").write_bytes(content)
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(ImageUnsupported, match="damaged"):
        extract(tmp_path / "all.zip", "1.dcm", spool)
    assert list(spool.iterdir()) == []


def test_a_zip_within_a_zip_is_no_image(make_silo, source, image):
    (source / "a.zip").write_bytes(packed({"inner.zip": packed({"1.dcm": image(1)}), "2.dcm": image(2)}))
    report = ingest(make_silo(), workers=1)
    assert report.added == 1
    assert refusals(report) == {"a.zip!/inner.zip": "not-dicom"}


MEASURED = """
import sys
from pathlib import Path
from silo_app.imaging.sources.zips import extract
try:
    extract(Path(sys.argv[1]), "1.dcm", Path(sys.argv[2]))
except Exception as error:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(error.reason, status["VmHWM"].split()[0])
"""
# Not `ru_maxrss`: Linux hands that of the process that forked on to the one that it starts.


def test_a_bomb_is_given_up_at_the_limit(tmp_path):
    packed_bomb = io.BytesIO()
    with zipfile.ZipFile(packed_bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("1.dcm", "w") as member:
        for _ in range(400):
            member.write(bytes(1 << 20))
    (tmp_path / "bomb.zip").write_bytes(packed_bomb.getvalue())
    assert (tmp_path / "bomb.zip").stat().st_size < 1 << 20
    spool = tmp_path / "spool"
    spool.mkdir()
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "bomb.zip"), str(spool)]
    reason, kibibytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert reason == "too-large"
    assert int(kibibytes) < 300 * 1024
    assert list(spool.iterdir()) == []


def test_no_room_is_no_fault_of_the_member(tmp_path, image, monkeypatch):
    (tmp_path / "a.zip").write_bytes(packed({"1.dcm": image(1)}))
    spool = tmp_path / "spool"
    spool.mkdir()
    real = zips.Path.open

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(self, mode="r", *words, **named):
        if mode == "xb":
            real(self, mode).close()
            return Full()
        return real(self, mode, *words, **named)

    monkeypatch.setattr(zips.Path, "open", opened)
    with pytest.raises(OSError, match="No space"):
        extract(tmp_path / "a.zip", "1.dcm", spool)
    assert list(spool.iterdir()) == []


def test_a_member_that_is_gone_is_not_retrieved(tmp_path, image):
    (tmp_path / "a.zip").write_bytes(packed({"1.dcm": image(1)}))
    with pytest.raises(ImageUnsupported) as caught:
        extract(tmp_path / "a.zip", "2.dcm", tmp_path)
    assert caught.value.reason == "not-retrieved"


def test_a_dicomdir_is_named_as_what_it_is(make_silo, source, image):
    from pydicom.data import get_testdata_file

    (source / "DICOMDIR").write_bytes(Path(get_testdata_file("DICOMDIR")).read_bytes())
    (source / "1.dcm").write_bytes(image(1))
    report = ingest(make_silo(), workers=1)
    assert report.added == 1
    assert refusals(report) == {"DICOMDIR": "dicomdir"}
