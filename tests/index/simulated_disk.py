"""A disk that may lose what was not synced: records what a program does to a folder, and makes what a crash could leave.

POSIX promises little: content is on disk after an fsync of the file, a name after an fsync of its folder. Between them any
part may be there: old content, new content, half of it, zeros; any of the names' changes, in any order. A rename is atomic.
"""

import contextlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HOOKED = ("fsync", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "fchmod", "chmod")
ATOMIC = ("rename", "replace")


@dataclass(frozen=True)
class Data:
    """A file's content has changed; what it was is lost or not until it is synced."""

    inode: int
    content: bytes


@dataclass(frozen=True)
class Names:
    """Names of folders changed together: (folder, name) to inode, or to None."""

    changes: tuple[tuple[tuple[int, str], int | None], ...]


@dataclass(frozen=True)
class Sync:
    """An fsync of a file or a folder."""

    inode: int


Event = Data | Names | Sync


@dataclass
class Disk:
    """What is on disk for sure, and what may be."""

    root: int
    content: dict[int, bytes | None] = field(default_factory=dict)
    """Of files; None for folders."""
    names: dict[tuple[int, str], int] = field(default_factory=dict)
    unsynced: dict[int, list[bytes]] = field(default_factory=dict)
    pending: list[Names] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> "Disk":
        """Return a folder whose whole content is on disk."""
        contents, names = _seen(folder)
        return cls(folder.stat().st_ino, dict(contents), dict(names))

    def after(self, event: Event) -> None:
        """Take note of what a program did."""
        if isinstance(event, Data):
            self.content.setdefault(event.inode, b"")
            self.unsynced.setdefault(event.inode, []).append(event.content)
        elif isinstance(event, Names):
            self.pending.append(event)
        else:
            if written := self.unsynced.pop(event.inode, None):
                self.content[event.inode] = written[-1]
            of_folder = [one for one in self.pending if one.changes[0][0][0] == event.inode]
            for one in of_folder:
                _apply(self.names, one)
            self.pending = [one for one in self.pending if one not in of_folder]

    def crashed(self, chance: random.Random) -> tuple[tuple[str, bytes | None], ...]:
        """Return paths with their contents (None: a folder) as a crash now could leave them."""
        names = dict(self.names)
        kept = chance.choice(("all", "none", "some", "first"))
        upto = chance.randint(0, len(self.pending))
        for number, one in enumerate(self.pending):
            if kept == "all" or (kept == "some" and chance.random() < 0.5) or (kept == "first" and number < upto):
                _apply(names, one)
        contents = self.content | {inode: _left(self.content[inode], new, chance) for inode, new in self.unsynced.items()}
        return tuple(sorted(_paths(names, contents, self.root)))


def _left(old: bytes | None, written: list[bytes], chance: random.Random) -> bytes:
    new = chance.choice(written)
    cut = chance.randint(0, len(new))
    return chance.choice([old or b"", new, new[:cut], new[:cut] + bytes(len(new) - cut)])


def _apply(names: dict[tuple[int, str], int], one: Names) -> None:
    for key, inode in one.changes:
        if inode is None:
            names.pop(key, None)
        else:
            names[key] = inode


def _paths(names: dict[tuple[int, str], int], contents: dict[int, bytes | None], folder: int, at: str = ""):
    for (parent, name), inode in names.items():
        if parent == folder:
            content = contents.get(inode)
            yield at + name, content
            if content is None:
                yield from _paths(names, contents, inode, f"{at}{name}/")


def _seen(folder: Path) -> tuple[dict[int, bytes | None], dict[tuple[int, str], int]]:
    contents: dict[int, bytes | None] = {folder.stat().st_ino: None}
    names: dict[tuple[int, str], int] = {}
    for path in sorted(folder.rglob("*")):
        inode = path.stat().st_ino
        names[path.parent.stat().st_ino, path.name] = inode
        contents[inode] = None if path.is_dir() else path.read_bytes()
    return contents, names


@contextmanager
def recording(folder: Path, monkeypatch) -> Iterator[list[Event]]:
    """Record what the block does to a folder; libraries that write by themselves are seen at the next call through os."""
    events: list[Event] = []
    last = _seen(folder)

    def look(*, atomic: bool) -> None:
        nonlocal last
        contents, names = _seen(folder)
        for inode, content in contents.items():
            if content is None:
                continue
            if inode not in last[0] or last[0][inode] != content:
                events.append(Data(inode, content))
        changes = [(key, names.get(key)) for key in last[1].keys() | names.keys() if last[1].get(key) != names.get(key)]
        if atomic and changes:
            events.append(Names(tuple(sorted(changes, key=lambda change: change[1] is None))))
        else:
            events.extend(Names((change,)) for change in sorted(changes, key=lambda change: change[0]))
        last = (contents, names)

    def hooked(name, real):
        def call(*args, **kwargs):
            look(atomic=False)
            result = real(*args, **kwargs)
            if name == "fsync":
                events.append(Sync(os.fstat(args[0]).st_ino))
            else:
                look(atomic=name in ATOMIC)
            return result

        return call

    with monkeypatch.context() as patch:
        for name in HOOKED:
            patch.setattr(os, name, hooked(name, getattr(os, name)))
        yield events
        look(atomic=False)


def made(folder: Path, state: tuple[tuple[str, bytes | None], ...]) -> Path:
    """Write what a crash left into an empty folder."""
    folder.mkdir()
    for name, content in state:
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)
    return folder


def removed(folder: Path) -> None:
    """Remove it, whatever is in it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(FileNotFoundError):
            path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
