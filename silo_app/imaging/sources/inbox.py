"""The silo's inbox: what an archive sent us, each image in a file of its own, stored before its sender is told so."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo_app.durable import private_folder, sync_folder, write_bytes
from silo_app.imaging.sources.source import Fetch, SourceFile

__all__ = ["Inbox", "InboxFiles"]

_SUFFIX = ".dcm"


@dataclass(frozen=True, slots=True)
class Inbox:
    """A folder `<root>/<first two digits>/<SHA-256 of the SOP Instance UID>.dcm`."""

    root: Path

    def path(self, sop: str) -> Path:
        """Return where the image with this SOP Instance UID lies, or would lie."""
        digest = hashlib.sha256(sop.encode()).hexdigest()
        return self.root / digest[:2] / f"{digest}{_SUFFIX}"

    def store(self, sop: str, content: bytes) -> None:
        """Store an image durably: when this returns, neither a crash nor a power cut takes it away."""
        path = self.path(sop)
        if not path.parent.is_dir():
            private_folder(path.parent)
            sync_folder(self.root)
        write_bytes(path, content)

    def remove(self, sop: str) -> bool:
        """Remove an image that was recalled; return whether it was there."""
        path = self.path(sop)
        if not path.is_file():
            return False
        path.unlink()
        sync_folder(path.parent)
        return True

    def free_bytes(self) -> int:
        """Return how much room its disk has for us."""
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def sweep(self) -> None:
        """Remove what a killed listener left half-written; only while nobody writes."""
        for part in self.root.glob("[0-9a-f][0-9a-f]/.*.part"):
            part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class InboxFiles:
    """What lies in the inbox of a `listen` source; an empty one is no mistake."""

    name: str
    inbox: Inbox

    def files(self) -> list[SourceFile]:
        """Return every whole file, ordered by name."""
        found = []
        for path in sorted(self.inbox.root.glob(f"[0-9a-f][0-9a-f]/[0-9a-f]*{_SUFFIX}")):
            status = path.stat()
            name = path.relative_to(self.inbox.root).as_posix()
            found.append(SourceFile(name=name, path=path, size=status.st_size, mtime_ns=status.st_mtime_ns))
        return found

    def confirm_gone(self, names: Sequence[str]) -> list[str]:
        """Return the names that are not there."""
        return [name for name in names if not (self.inbox.root / name).exists()]

    def named(self, name: str) -> SourceFile:
        """Return the file of this name."""
        return SourceFile(name=name, path=self.inbox.root / name, size=0, mtime_ns=0)

    @contextmanager
    def fetching(self, spool: Path) -> Iterator[Fetch]:  # noqa: ARG002  (the protocol's; these files lie here)
        """Give files where they lie."""
        yield lambda file: file.path
