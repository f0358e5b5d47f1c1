"""A set of images with a CSV, in a folder or a zip: read in place, never extracted, and never trusted.

Names inside a set are only looked up, never written to; sizes are bounded before anything is read; a path that leaves
its folder (by "..", an absolute name or a link) is as good as absent.
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from silo_app.errors import LabelsInvalid, SampleInvalid

LARGEST_IMAGE = 64 * 2**20
"""Bytes of one image file; a larger one is skipped unread."""
LARGEST_CSV = 256 * 2**20
MOST_FILES = 2_000_000
IMAGES = frozenset({".png", ".jpg", ".jpeg"})
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError)
"""What reading a member of a damaged, encrypted or exotic zip raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Where a set of images is, and what is to be known about its CSV beyond what the header tells."""

    path: Path
    csv: str | None = None
    """Name of the CSV inside; found if None."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Columns` to set by hand; the others follow the preset that the header belongs to, if any."""

    @property
    def name(self) -> str:
        """What people call the set."""
        return self.path.stem if self.path.suffix.lower() == ".zip" else self.path.name


@dataclass(frozen=True, slots=True)
class Opened:
    """A set that is open for reading: the size in bytes of every file in it, and how to read one."""

    sizes: Mapping[str, int]
    read: Callable[[str, int], bytes]
    """Return a file's bytes, at most so many."""


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a folder or a zip. Raises `SampleInvalid` if it is neither."""
    if path.is_dir():
        yield _folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise SampleInvalid(
            "there is no such file or folder", where=str(path), remedy="Name a zip or a folder with images and a CSV."
        ) from None
    except UNREADABLE:
        raise SampleInvalid(
            "this is neither a folder nor a zip that can be read",
            where=str(path),
            remedy="Name a zip or a folder with images and a CSV; if it is a download, check that it is complete.",
        ) from None
    with archive:
        yield _zip(archive, path)


def _zip(archive: zipfile.ZipFile, path: Path) -> Opened:
    infos = archive.infolist()
    _bounded(len(infos), path)
    sizes = {info.filename: info.file_size for info in infos if not info.is_dir() and _plain(info.filename)}

    def read(name: str, most: int) -> bytes:
        with archive.open(name) as member:
            return member.read(most)  # a size that lies in the directory does not make it read more

    return Opened(sizes, read)


def _folder(path: Path) -> Opened:
    root = path.resolve()
    sizes: dict[str, int] = {}
    for place, _, names in os.walk(root):  # does not follow links to folders
        for name in names:
            file = Path(place) / name
            if file.is_file() and file.resolve().is_relative_to(root):
                sizes[file.relative_to(root).as_posix()] = file.stat().st_size
        _bounded(len(sizes), path)

    def read(name: str, most: int) -> bytes:
        if name not in sizes:
            raise FileNotFoundError(name)
        with (root / name).open("rb") as file:
            return file.read(most)

    return Opened(sizes, read)


def _plain(name: str) -> bool:
    """Return whether a zip member's name stays inside, and is not what macOS adds."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return bool(parts) and ".." not in parts and parts[0] not in {"/", "__MACOSX"} and ":" not in parts[0]


def _bounded(count: int, path: Path) -> None:
    if count > MOST_FILES:
        raise SampleInvalid(f"more than {MOST_FILES} files", where=str(path), remedy="Divide the set.")


def read_csv(one: ImageSet, content: Opened, accepts: Callable[[str], bool]) -> tuple[str, str]:
    """Return name and text of a set's CSV: the one named, or the only one whose header line `accepts`.

    Raises `LabelsInvalid` if there is none, more than one, or one that is no text.
    """
    found = sorted(name for name in content.sizes if name.lower().endswith(".csv"))
    if one.csv is not None:
        found = [name for name in found if name == one.csv or PurePosixPath(name).name == one.csv]
    texts = {name: _text(one, content, name) for name in found}
    if len(texts) > 1:
        texts = {name: text for name, text in texts.items() if accepts(text.split("\n", 1)[0])} or texts
    if len(texts) == 1:
        return next(iter(texts.items()))
    problem = f"{len(texts)} CSVs could be the labels: {', '.join(texts)}" if texts else "there is no CSV with labels"
    if one.csv is not None and not texts:
        problem = f"there is no CSV called {one.csv!r}"
    raise LabelsInvalid(problem, where=str(one.path), remedy="Put one CSV beside the images, or name it with --csv.")


def _text(one: ImageSet, content: Opened, name: str) -> str:
    where = f"{one.path}:{name}"
    if content.sizes[name] > LARGEST_CSV:
        raise LabelsInvalid(f"{content.sizes[name]} bytes are too many", where=where, remedy="Divide the set.")
    try:
        return content.read(name, LARGEST_CSV).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LabelsInvalid("this is not UTF-8 text", where=where, remedy="Save the CSV as UTF-8.") from None
    except UNREADABLE:
        raise LabelsInvalid("the CSV cannot be read", where=where, remedy="Make or fetch the set again.") from None


def fingerprint(path: Path) -> str:
    """Return a digest of a set: of a zip's bytes; of a folder's names and sizes and its CSVs' bytes."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    with opened(path) as content:
        digest = hashlib.sha256()
        for name, size in sorted(content.sizes.items()):
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            if name.lower().endswith(".csv"):
                digest.update(content.read(name, LARGEST_CSV))
        return digest.hexdigest()
