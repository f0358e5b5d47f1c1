"""Frames over a unix socket inside one silo: four bytes of length, then the message; one reply for each.

The socket is 0600 in a 0700 folder: whoever may open it is the silo's own account, and nobody else is asked for more.
"""

import os
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

import msgpack

from silo_app.durable import PRIVATE, private_folder
from silo_app.errors import MessageInvalid, NotReady, SiloscopeError

__all__ = ["MAX_FRAME_BYTES", "FrameServer", "LocalUnreachable", "error_frame", "exchange"]

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH_BYTES = 4
_IDLE_S = 300.0


class LocalUnreachable(Exception):
    """Nobody listens on the socket, or it broke before the reply was whole, or the deadline passed."""


def exchange(path: Path, payload: bytes, *, timeout_s: float) -> bytes:
    """Send one message and return the reply. Raises `LocalUnreachable`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            _send(connection, payload)
            return _receive(connection)
    except (OSError, EOFError) as error:
        raise LocalUnreachable(f"{path.name}: {type(error).__name__}") from None


def error_frame(error: SiloscopeError) -> bytes:
    """Return an error as a message to our own side of the socket."""
    content = {"error": {"code": error.code, "problem": error.problem, "remedy": error.remedy}}
    return bytes(msgpack.packb(content))


class FrameServer:
    """Answers frames on a socket with `handler`, each connection on a thread of its own."""

    def __init__(self, path: Path, handler: Callable[[bytes], bytes]) -> None:
        self._path = path
        self._handler = handler
        self._server: socketserver.ThreadingUnixStreamServer | None = None

    def start(self) -> None:
        """Listen. Raises `NotReady` if another process listens there already."""
        private_folder(self._path.parent)
        _remove_stale(self._path)
        handler = self._handler

        class Connection(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(_IDLE_S)
                try:
                    while True:
                        _send(self.request, handler(_receive(self.request)))
                except (OSError, EOFError, MessageInvalid):
                    return  # the other side is gone, or speaks something else

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

        mask = os.umask(0o177)
        try:
            self._server = Server(str(self._path), Connection)
        finally:
            os.umask(mask)
        self._path.chmod(PRIVATE)
        threading.Thread(target=self._server.serve_forever, daemon=True, name=self._path.name).start()

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that was killed, and no other."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise NotReady("another process answers here already", where=str(path), remedy="End it first, or use it.")


def _send(connection: socket.socket, payload: bytes) -> None:
    connection.sendall(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)


def _receive(connection: socket.socket) -> bytes:
    length = int.from_bytes(_exactly(connection, _LENGTH_BYTES), "big")
    if length > MAX_FRAME_BYTES:
        raise MessageInvalid(f"a frame of {length} bytes", remedy="Nothing of it was read.")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = connection.recv(min(count - len(chunks), 1 << 20))
        if not chunk:
            raise EOFError
        chunks += chunk
    return bytes(chunks)
