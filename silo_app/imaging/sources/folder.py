"""A folder of DICOM files: everything below it, and the members of zip files."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo_app.errors import SourceEmpty, SourceUnreachable
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.sources.source import Fetch, SourceFile
from silo_app.imaging.sources.zips import extract, is_zip, zip_members

__all__ = ["FolderFiles", "listed", "open_folder"]


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """All files below a folder; links are followed, each folder once, so that a loop of links ends."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def files(self) -> list[SourceFile]:
        """Return every file, ordered by its path.

        Raises `SourceEmpty` if there is none: a disk that is not mounted; `SourceUnreachable` if we may not look.
        """
        listed(self.root)
        files = [file for found in _walk(self.root, "", set()) for file in _opened(found)]
        if not files:
            raise SourceEmpty(
                "the folder holds no file", where=self.name, remedy="Name the folder of your DICOM files with --source."
            )
        return files

    def confirm_gone(self, names: Sequence[str]) -> list[str]:
        """Return the names: a listing of a folder is the folder."""
        return list(names)

    def named(self, name: str) -> SourceFile:
        """Return the file of this name, or the member of a zip file."""
        ends = [place for place in range(len(name)) if name.startswith("!/", place)]
        zips = [path for end in ends if is_zip(path := self.root / name[:end])]
        return SourceFile(name=name, path=zips[0] if zips else self.root / name, size=0, mtime_ns=0)

    @contextmanager
    def fetching(self, spool: Path) -> Iterator[Fetch]:
        """Give files where they lie, and members of zip files unpacked."""

        def fetch(file: SourceFile) -> Path:
            if not file.whole and not is_zip(file.path):
                raise refusal(RefusalReason.UNREADABLE, "the folder cannot be listed or entered; nothing in it was read")
            member = file.name.removeprefix(file.path.relative_to(self.root).as_posix() + "!/")
            return extract(file.path, member, spool) if member != file.name else file.path

        yield fetch


def open_folder(path: Path) -> FolderFiles:
    """Return the source of a folder. Raises `SourceEmpty` if it is none, `SourceUnreachable` if that cannot be told."""
    try:
        is_folder = path.is_dir()
    except OSError as error:  # what it lies in is closed to us
        raise _closed(path, error) from None
    if not is_folder:
        raise SourceEmpty(
            "this is a file, not a folder" if path.exists() else "there is no such folder",
            where=str(path),
            remedy="Name the folder of your DICOM files with --source, or under `sources` in local/silo.yaml.",
        )
    return FolderFiles(path.resolve())


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name. Raises `SourceUnreachable` if we may not list it, or not enter it."""
    try:
        # To list takes one right, to look at what is listed another: asking for the folder above needs it.
        (folder / "..").stat()
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _closed(folder, error) from None


def _closed(folder: Path, error: OSError) -> SourceUnreachable:
    return SourceUnreachable(
        f"the folder cannot be read ({error.strerror or type(error).__name__})",
        where=str(folder),
        remedy="Let the account that runs Siloscope list and enter this folder and those above it, or mount it again.",
    )


def _walk(folder: Path, prefix: str, seen: set[tuple[int, int]]) -> Iterator[SourceFile]:
    try:
        status = folder.stat()
        entries = listed(folder)
    except (OSError, SourceUnreachable):
        # The folder itself is listed, so that it is refused as unreadable instead of being passed over.
        yield SourceFile(name=prefix.rstrip("/") or ".", path=folder, size=0, mtime_ns=0, whole=False)
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries:
        path, name = Path(entry.path), prefix + _text(entry.name)
        if _may_be_folder(path):
            yield from _walk(path, f"{name}/", seen)
        else:
            yield _file(path, name)


def _may_be_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link into a closed place: to be named as what could not be listed, not to end the ingest
        return True


def _opened(file: SourceFile) -> list[SourceFile]:
    """Return the members of a zip file, or the file itself."""
    return zip_members(file) if is_zip(file.path) else [file]


def _text(name: str) -> str:
    """Return a file's name as text: one that is not UTF-8 cannot be stored or printed as it is."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _file(path: Path, name: str) -> SourceFile:
    try:
        status = path.stat()
    except OSError:  # a broken link
        return SourceFile(name=name, path=path, size=0, mtime_ns=0)
    return SourceFile(name=name, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns)
