"""The processes that score private queries: SEAL holds its thread, so that several cores need several processes.

Each holds every n-th block of the gallery, prepared. They read what strangers sent under a memory limit of their own:
whatever a query does to one of them costs that query, and a new process takes its place.
"""

import contextlib
import mmap
import os
import resource
import struct
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import msgpack
import numpy as np
from numpy.typing import NDArray

from silo_app.errors import MessageInvalid, ProcessFailed, SiloscopeError
from silo_app.memory_file import memory_file

if TYPE_CHECKING:  # the index process itself never loads SEAL
    from silo_app.search.private.blind import PreparedGallery, Rotations

__all__ = ["UnknownSession", "Vectors", "Workers", "main"]

Vectors = Callable[[], NDArray[np.float32]]
"""Reads a gallery's vectors, float32 (n, D), where they have to be prepared."""

_SESSIONS = 64
_SPARE_BYTES = 1 << 30
_BYTES_A_VIEW = 8 * 1024  # what a prepared vector of 256 numbers takes, twice


class UnknownSession(Exception):
    """The rotation keys of this session are not held (any more): send them again."""


class Workers:
    """`shares` processes that together hold one gallery; one query at a time, from any thread.

    A gallery goes by the seed of its order. Its vectors lie in memory that the processes map, and only until all of them
    have prepared their shares: no end of a process, however sudden, leaves them anywhere.
    """

    def __init__(self, shares: int) -> None:
        self._shares = shares
        self._lock = threading.RLock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._held: int | None = None

    @contextlib.contextmanager
    def turn(self, timeout_s: float) -> Iterator[None]:
        """Keep the processes for this thread within the block. Raises `ProcessFailed` if others do beyond `timeout_s`."""
        if not self._lock.acquire(timeout=timeout_s):
            raise ProcessFailed("other private queries take all the time", remedy="Ask again.")
        try:
            yield
        finally:
            self._lock.release()

    def score(self, vectors: Vectors, seed: int, query: bytes, session: str, keys: bytes, *, noise: float) -> list[bytes]:
        """Return the encrypted scores, block by block, of a gallery in the order of `seed`.

        The first query of a gallery waits until it is prepared. Raises `UnknownSession`, `MessageInvalid` for a query
        that cannot be computed with, `ProcessFailed` if a process died.
        """
        with self._lock:
            try:
                self._hold(vectors, seed)
                order = {"query": query, "session": session, "keys": keys, "noise": noise}
                told = [self._tell(process, order) for process in self._running]
                replies = [self._finish(process) for process in told]
            except ProcessFailed:
                self._end()
                raise
        return _interleaved([_checked(reply) for reply in replies])

    def hold(self, vectors: Vectors, seed: int) -> None:
        """Prepare a gallery before anybody asks. Raises `ProcessFailed`."""
        with self._lock:
            self._hold(vectors, seed)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._end()

    def _hold(self, vectors: Vectors, seed: int) -> None:
        if self._held == seed and all(process.poll() is None for process in self._running):
            return
        self._end()
        with memory_file("vectors") as (descriptor, _):
            content = np.ascontiguousarray(vectors(), np.float32)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content.data)
            order = {"vectors": descriptor, "shape": content.shape, "seed": f"{seed:x}", "shares": self._shares}
            del content
            for share in range(self._shares):
                self._running.append(process := _started(descriptor))
                self._tell(process, order | {"share": share})
            for process in self._running:
                _checked(self._finish(process))
        self._held = seed

    def _tell(self, process: subprocess.Popen[bytes], order: dict[str, object]) -> subprocess.Popen[bytes]:
        try:
            _send(process.stdin, order)  # type: ignore[arg-type]  # a pipe, by construction
        except OSError:
            raise _died() from None
        return process

    def _finish(self, process: subprocess.Popen[bytes]) -> dict[str, object]:
        reply = _receive(process.stdout)  # type: ignore[arg-type]  # a pipe, by construction
        if reply is None:
            raise _died()
        return reply

    def _end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]  # a pipe, by construction
        self._running, self._held = [], None


def _started(descriptor: int) -> subprocess.Popen[bytes]:
    """Start a process that inherits one file beside its pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "silo_app.search.private.workers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        pass_fds=(descriptor,),
    )


def _died() -> ProcessFailed:
    return ProcessFailed("a scoring process ended", remedy="It is started again with the next query; see the log.")


def _checked(reply: dict[str, object]) -> list[bytes]:
    if reply.get("error") == "session":
        raise UnknownSession
    if "error" in reply:
        raise MessageInvalid(str(reply["error"]), remedy="Compare the versions of siloscope at the silos.")
    return list(reply["blocks"])  # type: ignore[call-overload,no-any-return]  # our own process wrote it


def _interleaved(shares: list[list[bytes]]) -> list[bytes]:
    """Return the blocks in order: share i holds the blocks i, i + n, and so on."""
    whole = [b""] * sum(map(len, shares))
    for share, blocks in enumerate(shares):
        whole[share :: len(shares)] = blocks
    return whole


def main() -> None:
    """Serve one parent until it closes the pipe."""
    orders, replies = sys.stdin.buffer, sys.stdout.buffer
    first = _receive(orders)
    if first is None:
        return
    gallery = _prepared(first)
    sessions: OrderedDict[str, Rotations] = OrderedDict()
    _send(replies, {"blocks": []})
    while (order := _receive(orders)) is not None:
        try:
            _send(replies, {"blocks": _scored(order, gallery, sessions)})
        except UnknownSession:
            _send(replies, {"error": "session"})
        except SiloscopeError as error:
            _send(replies, {"error": error.problem})


def _prepared(order: dict[str, object]) -> "PreparedGallery":
    from silo_app.search.private.blind import prepare

    vectors = _mapped(int(str(order["vectors"])), order["shape"])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limit = used + len(vectors) * _BYTES_A_VIEW + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    share, shares = int(str(order["share"])), int(str(order["shares"]))
    return prepare(vectors, int(str(order["seed"]), 16), share=share, shares=shares)


def _mapped(descriptor: int, shape: object) -> NDArray[np.float32]:
    """Return the vectors in a file that the parent shares, float32 (n, D), without a copy; the file is closed."""
    try:
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(content, np.float32).reshape(shape)  # type: ignore[call-overload,no-any-return]  # two numbers


def _scored(order: dict[str, object], gallery: "PreparedGallery", sessions: OrderedDict[str, "Rotations"]) -> list[bytes]:
    from silo_app.search.private.blind import Rotations, score

    session, keys = str(order["session"]), bytes(order["keys"])  # type: ignore[call-overload]  # bytes, by construction
    if keys:
        sessions[session] = Rotations.of(keys)
        while len(sessions) > _SESSIONS:
            sessions.popitem(last=False)
    if session not in sessions:
        raise UnknownSession
    sessions.move_to_end(session)
    query = bytes(order["query"])  # type: ignore[call-overload]  # bytes, by construction
    return score(query, sessions[session], gallery, noise=float(str(order["noise"])))


def _send(pipe: BinaryIO, content: dict[str, object]) -> None:
    packed = msgpack.packb(content)
    pipe.write(struct.pack(">I", len(packed)) + packed)
    pipe.flush()


def _receive(pipe: BinaryIO) -> dict[str, object] | None:
    head = pipe.read(4)
    if len(head) < 4:
        return None
    length = struct.unpack(">I", head)[0]
    packed = pipe.read(length)
    return dict(msgpack.unpackb(packed)) if len(packed) == length else None


if __name__ == "__main__":
    main()
