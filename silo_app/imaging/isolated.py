"""Read one file in a process of its own: for files from anywhere, such as a query."""

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from silo_app.catalogue import ContentKey
from silo_app.durable import private_folder
from silo_app.errors import ImageUnsupported
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.header import Header
from silo_app.imaging.pool import Decoder, decode_all, default_workers
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.worker import Request
from silo_app.memory_file import memory_file

__all__ = ["IsolatedReader", "read_isolated"]

SECONDS = 30


def read_isolated(path: Path, *, seconds: int = SECONDS) -> NDArray[np.float32]:
    """Return the radiograph of a file as an encoder sees it (`cache.as_cached`), float32 (H, W) in [0, 1].

    A decoder that crashes or hangs on a hostile file costs this call and not the caller's process; starting the
    process costs about half a second. Raises `ImageUnsupported` as `read_radiograph` does.
    """
    with tempfile.TemporaryDirectory(prefix="siloscope-") as folder:  # mode 0700
        (reply,) = decode_all([_request(str(path), folder, seconds)], workers=1)
        return _radiograph(reply, folder, str(path))


class IsolatedReader:
    """Reads one file after another as `read_isolated` does, in processes that are kept for the next; for many threads.

    At most `at_once` files are read at the same time; others wait. What a file is decoded to lies in `folder` for as long,
    and nothing else may: it is emptied first.
    """

    def __init__(self, folder: Path, *, at_once: int | None = None, seconds: int = SECONDS) -> None:
        self._folder = private_folder(folder)
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(at_once or default_workers())
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        for left in self._folder.iterdir():  # by one that was killed
            shutil.rmtree(left, ignore_errors=True)

    def read(self, source: Path | bytes) -> tuple[NDArray[np.float32], Header]:
        """Return a file's radiograph, float32 (H, W) in [0, 1], and its header. Raises `ImageUnsupported`, `NotReady`."""
        where = str(source) if isinstance(source, Path) else ""
        with self._decoder() as decoder, _readable(source) as path, tempfile.TemporaryDirectory(dir=self._folder) as folder:
            reply = decoder.decode(_request(path, folder, self._seconds))
            return _radiograph(reply, folder, where), Header(**reply["header"])

    def warm(self) -> None:
        """Start a process ahead of the first file."""
        with self._decoder():
            pass

    def close(self) -> None:
        """End the processes that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.close()

    @contextlib.contextmanager
    def _decoder(self) -> Iterator[Decoder]:
        with self._places:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            decoder = decoder or Decoder()
            try:
                yield decoder
            except ImageUnsupported:  # that is an answer
                self._keep(decoder)
                raise
            except BaseException:  # nobody knows in which state it is, and the next file is not to find out
                decoder.close()
                raise
            self._keep(decoder)

    def _keep(self, decoder: Decoder) -> None:
        with self._lock:
            self._idle.append(decoder)


@contextlib.contextmanager
def _readable(source: Path | bytes) -> Iterator[str]:
    """Give a path under which another process of this account reads a file's bytes; they reach no disk."""
    if isinstance(source, Path):
        yield str(source)
        return
    with memory_file("image") as (descriptor, path):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(source)
        yield path.replace("/proc/self/", f"/proc/{os.getpid()}/")


def _request(path: str, folder: str, seconds: int) -> Request:
    return Request(path=path, cache=folder, content_key=ContentKey.fresh().hex, seconds=seconds)


def _radiograph(reply: dict[str, Any], folder: str, where: str) -> NDArray[np.float32]:
    if "digest" in reply:
        return RadiographCache(Path(folder)).read(reply["digest"])
    raise refusal(
        RefusalReason(reply.get("reason", RefusalReason.DECODE_FAILED)),
        reply.get("detail", "the decoded image cannot be stored"),
        where=where,
    )
