import zipfile

import pytest

from silo_app.errors import LabelsInvalid, SampleInvalid
from silo_app.imaging.samples.image_set import ImageSet, fingerprint, opened, read_csv

FILES = {"images/a.png": b"one", "labels.csv": b"file\na.png\n"}


@pytest.mark.parametrize("how", ["pack", "spread_out"])
def test_a_zip_and_a_folder_read_alike(tmp_path, make, how):
    with opened(getattr(make, how)(tmp_path / "set", FILES)) as content:
        assert content.sizes == {name: len(data) for name, data in FILES.items()}
        assert content.read("images/a.png", 2) == b"on"


def test_names_that_leave_a_zip_are_absent(tmp_path, make):
    files = {"../evil.png": b"x", "/abs.png": b"x", "a/../../b.png": b"x", "C:/w.png": b"x", "__MACOSX/a.png": b"x"}
    with opened(make.pack(tmp_path / "set.zip", {**files, "good.png": b"x"})) as content:
        assert list(content.sizes) == ["good.png"]


def test_links_that_leave_a_folder_are_absent(tmp_path, make):
    (tmp_path / "secret.png").write_bytes(b"secret")
    folder = make.spread_out(tmp_path / "set", FILES)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to(tmp_path)
    with opened(folder) as content:
        assert set(content.sizes) == set(FILES)
        with pytest.raises(FileNotFoundError):
            content.read("../secret.png", 100)


def test_a_read_is_bounded_whatever_the_zip_says(tmp_path, make):
    with opened(make.pack(tmp_path / "set.zip", {"bomb.png": bytes(10**7)})) as content:
        assert len(content.read("bomb.png", 1000)) == 1000


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.zip", None, "no such file"),
        ("text.zip", b"this is no zip", "neither a folder nor a zip"),
        ("cut.zip", b"PK\x03\x04 cut off", "neither a folder nor a zip"),
    ],
)
def test_what_cannot_be_opened_is_refused(tmp_path, make, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleInvalid, match=problem), opened(tmp_path / name):
        pass


def choose(path, name=None, accepts=lambda line: False):
    with opened(path) as content:
        return read_csv(ImageSet(path=path, csv=name), content, accepts)[0]


def test_the_only_csv_is_found_and_others_by_header_or_name(tmp_path, make):
    path = make.pack(tmp_path / "set.zip", {"a.csv": b"x,y\n", "b/c.csv": b"file,findings\n"})
    assert choose(path, "a.csv") == "a.csv"
    assert choose(path, "c.csv") == "b/c.csv"
    assert choose(path, accepts=lambda line: line.startswith("file")) == "b/c.csv"
    with pytest.raises(LabelsInvalid, match=r"2 CSVs could be the labels: a.csv, b/c.csv"):
        choose(path)


@pytest.mark.parametrize(
    ("files", "name", "problem"),
    [
        ({"a.png": b"x"}, None, "there is no CSV with labels"),
        ({"a.csv": b"x"}, "b.csv", "there is no CSV called 'b.csv'"),
        ({"a.csv": b"\xff\xfe\x00"}, None, "not UTF-8"),
    ],
)
def test_a_missing_or_unreadable_csv_is_said(tmp_path, make, files, name, problem):
    with pytest.raises(LabelsInvalid, match=problem):
        choose(make.pack(tmp_path / "set.zip", files), name)


def test_a_damaged_csv_in_a_zip_is_said(tmp_path, make):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("labels.csv", b"file,findings\nabcdefgh,x\n")
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdXXgh", 1))
    with pytest.raises(LabelsInvalid, match="cannot be read"):
        choose(path)


@pytest.mark.parametrize("how", ["pack", "spread_out"])
def test_a_fingerprint_follows_the_content(tmp_path, make, how):
    write = getattr(make, how)
    one = fingerprint(write(tmp_path / "one", FILES))
    assert one == fingerprint(tmp_path / "one")
    assert one != fingerprint(write(tmp_path / "two", {**FILES, "images/b.png": b"two"}))
