"""Frames (`search.frames`) over a private unix socket inside one hospital.

The index process and the gateway listen; the socket is 0600 in a folder of mode 0700: the file system says who may ask.
"""

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder, try_lock
from silo_app.errors import MessageInvalid, NotReady, ProcessFailed, SiloscopeError
from silo_app.search.frames import announced, exactly, passed_over, receive, require_fits, send
from silo_app.search.messages import ErrorMessage
from silo_app.search.parcels import MAX_PARCEL_BYTES
from silo_app.search.wire import encode

__all__ = [
    "MAX_FRAME_BYTES",
    "MAX_REPLY_BYTES",
    "Connections",
    "FrameServer",
    "Limits",
    "NobodyListens",
    "error_frame",
    "exchange",
    "is_own_account",
]

_log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_REPLY_BYTES = MAX_PARCEL_BYTES + 4096
"""The answers to many queries may come in one frame."""
_SMALL = 64 * 1024
"""Bytes; a frame that is read however much others take."""
_LONGEST_ADDRESS = 100
"""Bytes; sun_path of unix(7) has 108 with the terminating zero."""
_IDLE_S = 60.0
_SOON_S = 0.1
_FINISH_S = 2.0
"""For what is being answered when a listener ends."""
_REMEDY = "Start the process that listens there, or look at its log."


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener takes on."""

    connections: int = 64
    frame: int = MAX_FRAME_BYTES
    """Bytes of one frame; who sends more is not listened to any longer."""
    room: int = 64 * MAX_FRAME_BYTES
    """Bytes of all frames that are being received and answered; one that has no room is passed over."""
    busy: bytes = b""
    """What whoever sent such a frame is told."""


USUAL = Limits()


def error_frame(error: SiloscopeError) -> bytes:
    """Return an error as a message to our own side of the socket, with its problem and remedy."""
    return encode(
        ErrorMessage(code=error.code, public=error.public, problem=error.problem[:1000], remedy=error.remedy[:1000])
    )


def exchange(socket_path: Path, payload: bytes, timeout_s: float) -> bytes:
    """Send one frame and return the reply, over a connection of its own.

    Raises `NobodyListens` if nobody does, `ProcessFailed` if there is no reply in time; `MessageInvalid` for a frame of more
    than `MAX_FRAME_BYTES`.
    """
    return Connections(socket_path, kept=0).exchange(payload, timeout_s)


class NobodyListens(ProcessFailed):
    """Nobody has the whole frame: what it asks for was not begun."""


class _Unsent(OSError):
    """A frame that did not leave whole."""


class Connections:
    """Connections to one socket that are kept for the next frame: neither side then begins anew; for many threads.

    A frame for which a kept connection has no reply is sent on a new one, `once` only if it did not leave whole before:
    whoever listened may be at work on it.
    """

    def __init__(self, path: Path, *, kept: int = 32, largest: int = MAX_FRAME_BYTES, once: bool = False) -> None:
        self._path = path
        self._kept = kept
        self._largest = largest
        self._once = once
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def __del__(self) -> None:
        """End what is kept: an asker ends when nobody holds it."""
        self.close()

    def require_fits(self, payload: bytes) -> None:
        """Raise `MessageInvalid` for a frame that `exchange` would not send."""
        require_fits(payload, self._largest)

    def exchange(self, payload: bytes, timeout_s: float) -> bytes:
        """Send one frame and return the reply. Raises as the function `exchange` does."""
        try:
            reply = self._exchanged(payload, time.monotonic() + timeout_s)
        except OSError as error:
            unsent = isinstance(error, _Unsent)
            problem = f"{'nobody listens' if unsent else 'the connection ended'} ({error.strerror})"
            if isinstance(error.__cause__ or error, TimeoutError):
                problem = f"no reply within {timeout_s:g} s"
            raise (NobodyListens if unsent else ProcessFailed)(problem, where=str(self._path), remedy=_REMEDY) from None
        if reply is None:
            raise ProcessFailed("the connection ended without a reply", where=str(self._path), remedy=_REMEDY)
        return reply

    def _exchanged(self, payload: bytes, end: float) -> bytes | None:
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        if kept is not None:
            # one that its listener has ended since, or that an earlier listener left, is no failure
            with contextlib.suppress(_Unsent if self._once else ConnectionError, _Unsent):
                if (reply := self._asked(kept, payload, end)) is not None or self._once:
                    return reply
        return self._asked(self._connected(end), payload, end)

    def reaches(self) -> bool:
        """Return whether somebody listens there; the connection is kept for the next frame."""
        with self._lock:
            if self._idle:
                return True
        try:
            connection = self._connected(time.monotonic() + _SOON_S)
        except OSError:
            return False
        with self._lock:
            self._idle.append(connection)
        return True

    def close(self) -> None:
        """End the connections that are kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connected(self, end: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(end))
            with _address(self._path) as address:
                connection.connect(address)
        except OSError as error:
            connection.close()
            raise _Unsent(error.errno, error.strerror) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _asked(self, connection: socket.socket, payload: bytes, end: float) -> bytes | None:
        reply = None
        try:
            connection.settimeout(_left(end))
            try:
                send(connection, payload, self._largest)
            except OSError as error:
                raise _Unsent(error.errno, error.strerror) from error
            reply = receive(connection, MAX_REPLY_BYTES)
        finally:
            with self._lock:
                keep = reply is not None and len(self._idle) < self._kept
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        return reply


class FrameServer:
    """Answers every frame with `handler(frame)`, each connection on a thread of its own; outlives any bad frame.

    `admits` says who may connect at all; without, whoever the file system lets in.
    """

    def __init__(
        self,
        path: Path,
        handler: Callable[[bytes], bytes],
        *,
        limits: Limits = USUAL,
        admits: Callable[[socket.socket], bool] | None = None,
    ) -> None:
        self._path = path
        self._handler = handler
        self._limits = limits
        self._admits = admits
        self._room = limits.room
        self._places = threading.BoundedSemaphore(limits.connections)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        """A connection has."""
        self._listener: socket.socket | None = None
        self._claim = -1

    def start(self) -> None:
        """Listen on a thread of its own. Raises `NotReady` if a living process listens there already."""
        private_folder(self._path.parent)
        self._claim = _claim(self._path)
        try:
            self._listener = _bound(self._path)
        except BaseException:
            os.close(self._claim)
            raise
        threading.Thread(target=self._accept, args=(self._listener,), name="frames", daemon=True).start()

    def close(self) -> None:
        """Stop listening, end every connection, and remove the socket; a second time does nothing.

        Frames that have come whole are answered before, for up to `_FINISH_S`: a reply that is ready is not lost.
        """
        listener, self._listener = self._listener, None
        if listener is None:
            return
        _end(listener)
        with self._lock:
            for connection in self._open:
                _end_reading(connection)
            self._ended.wait_for(lambda: not self._open, _FINISH_S)
            connections = list(self._open)
        for connection in connections:
            _end(connection)
        self._path.unlink(missing_ok=True)
        os.close(self._claim)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if not self._places.acquire(blocking=False):
                connection.close()  # the asker hears at once that nobody answers, rather than waiting in a queue
                continue
            with self._lock:
                self._open.add(connection)
                if self._listener is None:  # its end has not seen this one
                    _end_reading(connection)
            threading.Thread(target=self._serve, args=(connection,), name="frame", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                if self._admits is not None and not self._admits(connection):
                    _log.warning("a connection of another account was ended")
                    return
                connection.settimeout(_IDLE_S)
                while self._answers_next(connection):
                    pass
        except MessageInvalid as error:
            _log.warning("a connection was ended: %s", error.problem)
        except OSError:
            _log.debug("a connection ended", exc_info=True)
        finally:
            with self._lock:
                self._open.discard(connection)
                self._ended.notify_all()
            self._places.release()

    def _answers_next(self, connection: socket.socket) -> bool:
        """Answer one frame; False if the other side ended the connection."""
        length = announced(connection, self._limits.frame)
        reply = None if length is None else self._reply(connection, length)
        if reply is None:
            return False
        send(connection, reply, MAX_REPLY_BYTES)  # the frame holds no room any more: who has the reply may ask at once
        return True

    def _reply(self, connection: socket.socket, length: int) -> bytes | None:
        """Read one frame and return what is said to it; None if the other side ended the connection."""
        with self._holding(length) as has_room:
            if not has_room:
                return self._limits.busy if passed_over(connection, length) else None
            frame = exactly(connection, length)
            return None if frame is None else self._answer(frame)

    @contextmanager
    def _holding(self, length: int) -> Iterator[bool]:
        """Keep room for a frame, if there is any."""
        taken = length if length > _SMALL else 0
        with self._lock:
            if has_room := taken <= self._room:
                self._room -= taken
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._room += taken

    def _answer(self, frame: bytes) -> bytes:
        try:
            return self._handler(frame)
        except SiloscopeError as error:
            _log.warning("a frame was not answered: %s", error.code)
            return encode(ErrorMessage(code=error.code, public=error.public))
        except Exception:  # noqa: BLE001  (a bad frame must not end the process)
            _log.exception("a frame was not answered")
            return encode(ErrorMessage(code=SiloscopeError.code, public=SiloscopeError.public))


def is_own_account(connection: socket.socket) -> bool:
    """Return whether the process at the other end belongs to our account, by the kernel's word (`SO_PEERCRED`, unix(7))."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # another system than Linux: the folder's mode is what there is
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return bool(user == os.geteuid())


def _claim(path: Path) -> int:
    """Return the locked descriptor of `<socket>.lock`: the kernel frees it with the process, however that ends."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    if not try_lock(descriptor):
        os.close(descriptor)
        raise NotReady(
            "another process listens here already", where=str(path), remedy="End it first, or use the one that runs."
        )
    return descriptor


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # what a killed process left behind: whoever holds the lock owns the name
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(path) as address:
            listener.bind(address)
        path.chmod(PRIVATE)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a name for `path` that fits into a socket address, through a descriptor of its folder where it is long."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())


def _end_reading(connection: socket.socket) -> None:
    """End whoever waits there for a frame; whoever answers one goes on."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        connection.close()
