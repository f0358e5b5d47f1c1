"""What a silo ingests from: the contract that folders, archives and the inbox keep."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["Fetch", "Source", "SourceFile"]


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """One image of a source, or whatever lies there, and what tells cheaply whether it has changed."""

    name: str
    """Relative to the source, with forward slashes; stable from run to run."""
    path: Path
    """Where it lies, or the archive file it lies in; a remote image's name."""
    size: int
    """Bytes; 0 where the listing does not tell."""
    mtime_ns: int
    """The file's time, or a number drawn from what the listing says of it: another one means that it has changed."""
    whole: bool = True
    """False for a folder or zip file that could not be listed: nothing below this name counts as gone."""


Fetch = Callable[[SourceFile], Path]
"""Returns where the file can be read now. Raises `ImageUnsupported` for this file, `SourceUnreachable` for the source."""


class Source(Protocol):
    """What a silo ingests from.

    `files` returns everything that there is, images or not, in the same order every time; nothing is left out silently, and
    it raises `SourceUnreachable` rather than return a part. What is missing in it is gone only if `confirm_gone` says so
    too. `fetching(spool)` gives what brings single files here: into the private folder `spool`, whose files the caller
    removes, or to where they lie anyway; `named` gives what it takes for a file whose name is known.
    """

    @property
    def name(self) -> str:
        """What the catalogue calls this source; stable from run to run."""
        ...

    def files(self) -> Sequence[SourceFile]:
        """Return every file, in a fixed order. Raises `SourceEmpty` where that means a mistake."""
        ...

    def confirm_gone(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that the source, asked for each, does not hold any more."""
        ...

    def named(self, name: str) -> SourceFile:
        """Return the file that a listing called so, to be fetched again; whether it is still there, that will tell."""
        ...

    def fetching(self, spool: Path) -> AbstractContextManager[Fetch]:
        """Return what fetches files, for as long as the block lasts."""
        ...
