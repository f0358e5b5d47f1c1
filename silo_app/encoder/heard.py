"""Lines between a child process and its parent, with a sign of life: one that hangs is told from one that works for long.

A thread of the child's says every few seconds that it is there, whatever its others do. It says nothing while the process is
stopped, or waits for memory that is swapped out.
"""

import json
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TextIO

__all__ = ["Hearing", "Silent", "Speaker"]

_ALIVE = json.dumps({"event": "alive"}) + "\n"
_EVERY_S = 2.0
SILENT_S = 120.0
"""As long as the server waits for a silo that says nothing (`flare.presence`)."""
_LOOK_S = 1.0


class Silent(Exception):
    """The child has not said for long that it is there."""


class Speaker:
    """The child's end, for many threads: each message is a line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        """Say it now."""
        self._write(json.dumps(message) + "\n")

    def live(self) -> None:
        """Say from now on, until the process ends, that it is there."""
        threading.Thread(target=self._beat, name="alive", daemon=True).start()

    def _beat(self) -> None:
        with suppress(OSError, ValueError):  # the parent hears no more
            while True:
                self._write(_ALIVE)
                time.sleep(_EVERY_S)

    def _write(self, line: str) -> None:
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


class Hearing:
    """The parent's end: a thread reads the lines, so that their absence can be noticed."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._beats = 0
        self._thread = threading.Thread(target=self._read, args=(stream,), name="hearing", daemon=True)
        self._thread.start()

    def line(self) -> str:
        """Return the next line but signs of life; "" once the child has closed its end, and from then on.

        Raises `Silent` for a child that said once that it is there, and then nothing for `SILENT_S`. Looks are counted, not
        time: of a while in which this process was stopped too, nothing is known.
        """
        silent, beats = 0, self._beats
        while True:
            try:
                line = self._lines.get(timeout=_LOOK_S)
            except Empty:
                silent = silent + 1 if beats == self._beats else 0
                beats = self._beats
                if beats and silent * _LOOK_S >= SILENT_S:
                    raise Silent from None
                continue
            if not line:
                self._lines.put(line)
            return line

    def close(self, within_s: float) -> None:
        """Wait until everything that an ended child said was read."""
        self._thread.join(timeout=within_s)

    def _read(self, stream: Iterable[str]) -> None:
        with suppress(OSError, ValueError):  # closed by its owner
            for line in stream:
                if line == _ALIVE:
                    self._beats += 1
                else:
                    self._lines.put(line)
        self._lines.put("")
