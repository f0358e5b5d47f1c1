"""Durable files: a reader sees the old content or the new content, never half of either.

Every file that Siloscope publishes goes through here: temporary file in the same folder, fsync, rename, fsync of the
folder. Private files are created 0600, so there is no moment in which another account could read them.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from silo_app.errors import ConfigInvalid

PRIVATE = 0o600
SHARED = 0o644


@contextmanager
def replacing(path: Path, *, mode: int = PRIVATE) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block ends, and is removed when the block raises."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, content: bytes, *, mode: int = PRIVATE) -> None:
    """Replace the content of `path` durably."""
    with replacing(path, mode=mode) as file:
        file.write(content)


def write_text(path: Path, content: str, *, mode: int = PRIVATE) -> None:
    """Replace the content of `path` durably, as UTF-8."""
    write_bytes(path, content.encode(), mode=mode)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename alone may be lost with the power)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file or folder (flock(2)), unless another process has it; the kernel frees it with the descriptor."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def private_folder(path: Path) -> Path:
    """Create `path` with mode 0700 (parents too, with the process's own mask) and return it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def read_private_text(path: Path) -> str:
    """Return the text of a secret's file. Raises `ConfigInvalid` if it is missing, or others may read it."""
    try:
        return _read_private(path).decode("utf-8")
    except UnicodeDecodeError:
        raise _unreadable(path) from None


def read_private_bytes(path: Path, count: int) -> bytes:
    """Return a secret of `count` bytes. Raises `ConfigInvalid` as `read_private_text` does, or if it is of another size."""
    content = _read_private(path)
    if len(content) != count:
        raise ConfigInvalid(
            f"this secret has {len(content)} bytes, not {count}", where=str(path), remedy="Restore the file from a backup."
        )
    return content


def _read_private(path: Path) -> bytes:
    try:
        others = path.stat().st_mode & 0o077
        content = path.read_bytes()
    except OSError:
        raise _unreadable(path) from None
    if others:
        raise ConfigInvalid(
            "other accounts of this machine may read this secret", where=str(path), remedy=f"chmod 600 {path}"
        )
    return content


def _unreadable(path: Path) -> ConfigInvalid:
    return ConfigInvalid("it cannot be read", where=str(path), remedy="Make the file, with mode 0600.")
