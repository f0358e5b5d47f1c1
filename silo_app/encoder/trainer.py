"""The trainer as its parent sees it: a child process that answers requests, and may die without taking the parent along.

No torch here: the process that holds keys and talks to the federation stays small and does not crash with a driver.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from silo_app.encoder.heard import Hearing, Silent
from silo_app.errors import (
    CatalogueDamaged,
    CheckpointInvalid,
    ConfigInvalid,
    EncoderMismatch,
    NotReady,
    PrivacyRefused,
    ProcessFailed,
    ReleaseRefused,
    SiloscopeError,
    StateError,
    UpdateRefused,
)

__all__ = ["Trainer", "ask_twice"]

_log = logging.getLogger(__name__)
_TAIL_LINES = 20
_LAST_WORDS_S = 5.0
"""How long a dying child's end and last words are waited for."""
_KNOWN: dict[str, type[SiloscopeError]] = {
    error.code: error
    for error in (
        CatalogueDamaged,
        CheckpointInvalid,
        ConfigInvalid,
        EncoderMismatch,
        NotReady,
        PrivacyRefused,
        ReleaseRefused,
        UpdateRefused,
    )
}


class Trainer:
    """A child process bound to one silo and one private folder; requests are answered one at a time."""

    def __init__(self, kit: Path, folder: Path, threads: int | None) -> None:
        self._kit = kit
        self._folder = folder
        self._threads = threads
        self._child: subprocess.Popen[str] | None = None
        self._hearing: Hearing | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._closed = False
        self._asking = threading.RLock()
        self._drain: threading.Thread | None = None
        self._prologue: dict[str, Any] | None = None

    @classmethod
    def start(cls, kit: Path, folder: Path, *, threads: int | None = None) -> Self:
        """Return a trainer; its process starts with the first request. `folder` is where tensors are exchanged."""
        return cls(kit, folder, threads)

    def __enter__(self) -> Self:
        """Use the trainer in a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, or None while none runs."""
        return self._child.pid if self._child is not None else None

    def request(self, op: str, *, progress: Callable[[int, int], None] | None = None, **parameters: Any) -> dict[str, Any]:
        """Return the child's answer. Raises `ProcessFailed` if it died or hangs, or the error that it reported.

        The last "open" is repeated in every new child, so that a crash costs one request and not the ones after it.
        """
        with self._asking:
            fresh = self._child is None or self._child.poll() is not None
            child = self._running()
            if op == "open":
                self._prologue = parameters
            elif fresh and self._prologue is not None:
                self._open_again(child, self._prologue, progress)
            return self._exchange(child, op, parameters, progress)

    def _open_again(
        self, child: subprocess.Popen[str], prologue: dict[str, Any], progress: Callable[[int, int], None] | None
    ) -> None:
        """Open in a new child what the one before had open; a child that cannot is ended, or it would serve without data."""
        try:
            self._exchange(child, "open", prologue | {"again": True}, progress)
        except SiloscopeError:
            self._release()
            raise

    def _exchange(
        self,
        child: subprocess.Popen[str],
        op: str,
        parameters: dict[str, Any],
        progress: Callable[[int, int], None] | None,
    ) -> dict[str, Any]:
        try:
            self._send(child, {"op": op, **parameters})
            while (message := self._receive()).get("event") == "progress":
                if progress is not None:
                    progress(message["done"], message["total"])
        except (BrokenPipeError, EOFError, ValueError):  # ValueError: a line cut short, a pipe that `close` closed
            raise self._died(child, op) from None
        except Silent:
            self._release()
            raise ProcessFailed(
                f"the trainer hung during {op!r} and was ended: it did not even say that it is there",
                remedy="Is memory swapped out, or was the process stopped? The silo answers the next round.",
            ) from None
        except BaseException:  # of `progress`: what is still to come must not be taken for the next answer
            self._release()
            raise
        if "error" in message:
            raise _error(message["error"])
        return dict(message["answer"])

    def close(self) -> None:
        """Kill the child and everything it started; a request that waits for it in another thread fails."""
        self._closed = True
        child = self._child
        if child is not None:
            _kill(child)
        with self._asking:
            self._release()

    def _running(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is not None:
            self._release()
        if self._child is None and not self._closed:
            environment = os.environ | ({"OMP_NUM_THREADS": str(self._threads)} if self._threads else {})
            self._child = subprocess.Popen(
                [sys.executable, "-m", "silo_app.encoder.worker", str(self._kit), str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                start_new_session=True,
            )
            assert self._child.stdout is not None  # noqa: S101  (opened as a pipe)
            self._hearing = Hearing(self._child.stdout)
            self._tail.clear()
            self._drain = threading.Thread(target=self._keep_tail, args=(self._child,), daemon=True)
            self._drain.start()
        if self._child is None or self._closed:  # `close` may have come between the two
            self._release()
            raise ProcessFailed("the trainer was ended", remedy="The job was aborted; submit it again.")
        return self._child

    def _release(self) -> None:
        """Let go of a child: dead, reaped, every pipe closed, all that it printed read."""
        if self._child is None:
            return
        _kill(self._child)
        if self._drain is not None:
            self._drain.join(timeout=_LAST_WORDS_S)
        if self._hearing is not None:
            self._hearing.close(_LAST_WORDS_S)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a request that was never read
                    pipe.close()
        self._child = None

    def _keep_tail(self, child: subprocess.Popen[str]) -> None:
        for line in child.stderr or ():
            self._tail.append(line.rstrip())

    @staticmethod
    def _send(child: subprocess.Popen[str], message: dict[str, Any]) -> None:
        assert child.stdin is not None  # noqa: S101  (opened as a pipe above)
        child.stdin.write(json.dumps(message) + "\n")
        child.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._hearing.line() if self._hearing is not None else ""
        if not line:
            raise EOFError
        return dict(json.loads(line))

    def _died(self, child: subprocess.Popen[str], op: str) -> ProcessFailed:
        with suppress(subprocess.TimeoutExpired):  # its pipes close a moment before it ends by itself
            child.wait(timeout=_LAST_WORDS_S)
        self._release()
        status = child.returncode
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        tail = "\n".join(self._tail)
        return ProcessFailed(
            f"the trainer ended with {how} during {op!r}" + (f":\n{tail}" if tail else ""),
            remedy="If it was out of memory, set training.views_at_once in silo.yaml. The silo answers the next round.",
        )


def ask_twice(trainer: Trainer, op: str, **parameters: Any) -> dict[str, Any]:
    """Return the answer, to the second request if the child died of the first: who cannot begin is out of the job."""
    try:
        return trainer.request(op, **parameters)
    except ProcessFailed as error:
        _log.warning("the trainer is started again: %s", error.problem)
        return trainer.request(op, **parameters)


def _error(report: dict[str, str]) -> SiloscopeError:
    kind = _KNOWN.get(report["code"], StateError)
    return kind(report["problem"], remedy=report["remedy"], where=report["where"])


def _kill(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:  # else the number may be another process's by now
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
