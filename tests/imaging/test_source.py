"""A folder is listed whole, in one order, whatever lies in it."""

import os

import pytest
from pydicom.uid import UID

from silo_app.errors import ImageUnsupported, SourceEmpty, SourceUnreachable
from silo_app.imaging.decoders import available_decoders
from silo_app.imaging.sources import open_folder
from silo_app.imaging.sources.storage import ASKED_CLASSES, TRANSFER_SYNTAXES


def names(path):
    return [file.name for file in open_folder(path).files()]


def test_every_file_is_listed_in_order(tmp_path):
    for name in ("b/2.dcm", "a/deep/er/1.dcm", "readme.txt", ".hidden", "b/1.dcm"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert names(tmp_path) == [".hidden", "a/deep/er/1.dcm", "b/1.dcm", "b/2.dcm", "readme.txt"]


def test_loops_of_links_end_and_linked_folders_are_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.dcm").write_bytes(b"x")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert names(tmp_path) == ["real/1.dcm", "self"]


def test_broken_link_and_odd_names_are_listed(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / os.fsdecode(b"\xff.dcm")).write_bytes(b"x")
    assert names(tmp_path) == ["gone", "\\xff.dcm"]


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: None, lambda p: p.write_bytes(b"x")])
def test_empty_or_missing_folder_says_what_to_do(tmp_path, make):
    path = tmp_path / "source"
    make(path)
    with pytest.raises(SourceEmpty, match="--source"):
        names(path)


def test_folder_of_empty_folders_is_empty(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(SourceEmpty):
        names(tmp_path)


def test_folders_that_are_closed_to_us_are_named_and_the_others_read(as_nobody, shared_folder):
    for name in ("open", "shut", "only-listed", "only-entered"):
        (shared_folder / name / "deep").mkdir(parents=True)
        (shared_folder / name / "1.dcm").write_bytes(b"x")
        (shared_folder / name / "deep" / "2.zip").write_bytes(b"x")
    (shared_folder / "link").symlink_to(shared_folder / "shut" / "deep")
    (shared_folder / "link.zip").symlink_to(shared_folder / "shut" / "deep" / "2.zip")
    for name, mode in (("shut", 0o000), ("only-listed", 0o444), ("only-entered", 0o111)):
        (shared_folder / name).chmod(mode)
    with as_nobody():
        files = open_folder(shared_folder).files()
    assert [file.name for file in files if file.whole] == ["open/1.dcm"]
    unlisted = ["link", "link.zip", "only-entered", "only-listed", "open/deep/2.zip", "shut"]
    assert [file.name for file in files if not file.whole] == unlisted


def test_a_folder_that_is_closed_to_us_is_refused_as_one(as_nobody, shared_folder):
    (shared_folder / "shut").mkdir(mode=0o000)
    source = open_folder(shared_folder)
    with as_nobody(), source.fetching(shared_folder) as fetch, pytest.raises(ImageUnsupported, match="listed or entered"):
        fetch(source.files()[0])


@pytest.mark.parametrize(("mode", "below"), [(0o000, ""), (0o444, ""), (0o111, ""), (0o000, "deep"), (0o444, "deep")])
def test_a_source_that_is_closed_to_us_is_not_an_empty_one(mode, below, as_nobody, shared_folder):
    path = shared_folder / "images" / below
    (shared_folder / "images" / "deep").mkdir(parents=True)
    (shared_folder / "images" / "deep" / "1.dcm").write_bytes(b"x")
    (shared_folder / "images").chmod(mode)
    with as_nobody(), pytest.raises(SourceUnreachable, match="cannot be read") as caught:
        names(path)
    assert "list and enter" in caught.value.remedy


def test_whatever_can_be_decoded_can_be_sent_to_us():
    assert {UID(syntax).name for syntax in TRANSFER_SYNTAXES} >= set(available_decoders())
    assert len(ASKED_CLASSES) * len(TRANSFER_SYNTAXES) + 2 <= 128  # presentation contexts of one C-GET (PS3.8 9.3.2.2)
