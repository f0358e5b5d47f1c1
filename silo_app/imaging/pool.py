"""Decode many files on all cores, in order, whatever a single file does to its decoder.

`concurrent.futures` gives up the whole pool when one process dies and cannot stop one that hangs. Here each worker has
one file at a time and dies when it takes too long; then that file is reported lost and the worker is replaced.
"""

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import silo_app
from silo_app.errors import NotReady
from silo_app.imaging.refusal import RefusalReason
from silo_app.imaging.worker import READY, Request

__all__ = ["LOST", "Decoder", "decode_all", "default_workers", "environment"]

LOST = {"reason": RefusalReason.DECODE_FAILED.value, "detail": "the decoder crashed or took too long"}

_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""A worker takes one radiograph after another: what one has freed the next one uses, and is not returned to the system,
which would give it out again page by page (glibc's `mallopt(3)`; other C libraries do not read this)."""
_AHEAD = 512
"""How far finished files may run ahead of one that takes long; only small replies wait."""


def default_workers() -> int:
    """Return the number of cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def decode_all(requests: Sequence[Request], *, workers: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the reply to each request (`worker.decode`), in order; `LOST` for one whose decoder crashed or hung.

    Raises `NotReady` if a decoder does not even start; where only some do, those go on.
    """
    replies: dict[int, dict[str, Any]] = {}
    given = 0
    if not workers:  # a process takes as long to start as a hundred small files to read
        workers = min(default_workers(), 1 + len(requests) // 32)
    with _Pool(min(workers, len(requests))) as pool:
        for wanted in range(len(requests)):
            while wanted not in replies:
                while given < min(len(requests), wanted + _AHEAD) and pool.give(given, requests[given]):
                    given += 1
                replies.update(pool.collect())
            yield replies.pop(wanted)


class Decoder:
    """One worker that is kept for one file after another, and replaced where a file ended it; for one thread at a time."""

    def __init__(self) -> None:
        self._pool = _Pool(1)

    def decode(self, request: Request) -> dict[str, Any]:
        """Return the reply to a request, or `LOST`. Raises as `decode_all` does; it is then to be closed."""
        self._pool.renew()
        replies: dict[int, dict[str, Any]] = {}
        while not self._pool.give(0, request):
            self._pool.collect()
        while not replies:
            replies = self._pool.collect()
        return replies[0]

    def close(self) -> None:
        """End the worker."""
        self._pool.close()


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    replies: IO[bytes]
    ready: bool = False
    number: int | None = None
    """Which request it works on; None if it is idle."""
    received: bytearray = field(default_factory=bytearray)


class _Pool:
    """Workers, and which of them is busy with what."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._selector = selectors.DefaultSelector()
        self._all: list[_Worker] = []
        self._idle: deque[_Worker] = deque()
        self._fill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._all):
            self._remove(worker)
        self._selector.close()

    def renew(self) -> None:
        """Replace workers that ended while they had nothing to do, and those that could not be replaced before."""
        for worker in [worker for worker in self._all if worker.process.poll() is not None]:
            self._remove(worker)
        self._fill()

    def give(self, number: int, request: Request) -> bool:
        """Hand a request to an idle worker; False if there is none."""
        if not self._idle:
            return False
        worker = self._idle.popleft()
        worker.number = number
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `collect` sees its closed stdout
            worker.requests.write(json.dumps(asdict(request)).encode() + b"\n")
            worker.requests.flush()
        return True

    def collect(self) -> dict[int, dict[str, Any]]:
        """Wait until something is known of at least one worker; return the replies by request."""
        done: dict[int, dict[str, Any]] = {}
        self._fill()  # one that could not be replaced is missing still, and without any nothing would ever be known
        for key, _ in self._selector.select():
            worker: _Worker = key.data
            content = os.read(worker.replies.fileno(), 1 << 16)
            worker.received += content
            if not content:
                self._replace(worker, done)
            elif worker.received.endswith(b"\n"):
                self._finish(worker, done)
        return done

    def _finish(self, worker: _Worker, done: dict[int, dict[str, Any]]) -> None:
        line = worker.received.decode()
        worker.received.clear()
        if worker.ready and worker.number is not None:
            done[worker.number] = json.loads(line)
        worker.ready = worker.ready or line.strip() == READY
        worker.number = None
        self._idle.append(worker)

    def _replace(self, worker: _Worker, done: dict[int, dict[str, Any]]) -> None:
        if not worker.ready:
            raise NotReady(
                f"a decoder does not start (exit status {worker.process.wait()})",
                remedy="Run `python -m silo_app.imaging.worker` to see why; the installation may be incomplete.",
            )
        if worker.number is not None:
            done[worker.number] = LOST
        self._remove(worker)
        with contextlib.suppress(NotReady):  # what became of the file is told first
            self._fill()

    def _fill(self) -> None:
        """Start the workers that are missing, as far as the system allows. Raises `NotReady` if there is none then."""
        try:
            while len(self._all) < self._size:
                self._add()
        except OSError as error:
            if not self._all:
                raise NotReady(
                    f"a decoder cannot be started: {error.strerror}",
                    remedy="Look at the machine's free memory, and at how many processes this account may have.",
                ) from None

    def _add(self) -> None:
        process = _start()
        assert process.stdin is not None and process.stdout is not None  # noqa: PT018, S101  (both are pipes)
        worker = _Worker(process, process.stdin, process.stdout)
        self._all.append(worker)
        self._selector.register(worker.replies, selectors.EVENT_READ, worker)

    def _remove(self, worker: _Worker) -> None:
        self._all.remove(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        self._selector.unregister(worker.replies)
        worker.process.kill()
        worker.process.wait()
        worker.replies.close()
        with contextlib.suppress(BrokenPipeError):
            worker.requests.close()


def environment() -> dict[str, str]:
    """Return the environment of a worker: one thread each, the `silo_app` that we imported, and memory kept for the next."""
    paths = [str(Path(silo_app.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | _KEPT_MEMORY | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OPENBLAS_NUM_THREADS": "1"}


def _start() -> subprocess.Popen[bytes]:
    """Start a worker; `-P` keeps the current folder out of its path."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "silo_app.imaging.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,  # Ctrl-C is for us: we end the workers ourselves
    )
