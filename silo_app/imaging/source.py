"""Where images come from: today a folder; a PACS later, behind the same protocol."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from silo_app.errors import SourceEmpty

__all__ = ["FolderFiles", "Source", "SourceFile", "open_folder"]


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """One file of a source and what tells cheaply whether it has changed."""

    name: str
    """Relative to the source, with forward slashes; stable from run to run."""
    path: Path
    size: int
    """Bytes."""
    mtime_ns: int


class Source(Protocol):
    """What a silo ingests from.

    `files` yields everything that there is, images or not, in the same order every time; nothing is left out silently.
    It raises `SourceEmpty` if there is nothing.
    """

    @property
    def name(self) -> str:
        """What the catalogue calls this source; stable from run to run."""
        ...

    def files(self) -> Iterator[SourceFile]:
        """Yield every file, in a fixed order."""
        ...


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """All files below a folder; links are followed, each folder once, so that a loop of links ends."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def files(self) -> Iterator[SourceFile]:
        """Yield every file, ordered by its path."""
        found = False
        for file in _walk(self.root, "", set()):
            found = True
            yield file
        if not found:
            raise SourceEmpty(
                "the folder holds no file", where=self.name, remedy="Name the folder of your DICOM files with --source."
            )


def open_folder(path: Path) -> FolderFiles:
    """Return the source of a folder. Raises `SourceEmpty` if it is none."""
    if not path.is_dir():
        raise SourceEmpty(
            "this is a file, not a folder" if path.exists() else "there is no such folder",
            where=str(path),
            remedy="Name the folder of your DICOM files with --source, or under `sources` in local/silo.yaml.",
        )
    return FolderFiles(path.resolve())


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[SourceFile]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        # The folder itself is listed, so that it is refused as unreadable instead of being passed over.
        yield SourceFile(name=prefix.rstrip("/") or ".", path=folder, size=0, mtime_ns=0)
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        path, name = Path(entry.path), prefix + _text(entry.name)
        if path.is_dir():
            yield from _walk(path, f"{name}/", seen)
        else:
            yield _file(path, name)


def _text(name: str) -> str:
    """Return a file's name as text: one that is not UTF-8 cannot be stored or printed as it is."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _file(path: Path, name: str) -> SourceFile:
    try:
        status = path.stat()
    except OSError:  # a broken link
        return SourceFile(name=name, path=path, size=0, mtime_ns=0)
    return SourceFile(name=name, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
