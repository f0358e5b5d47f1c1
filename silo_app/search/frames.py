"""Frames on a connection: a length of 4 bytes, big endian, then the message; its length is looked at before it is read."""

import socket

from silo_app.errors import MessageInvalid

__all__ = ["announced", "exactly", "passed_over", "receive", "require_fits", "send"]

_LENGTH = 4


def send(connection: socket.socket, payload: bytes, largest: int) -> None:
    """Send a frame. Raises `MessageInvalid` for a larger one, of which nothing is sent."""
    require_fits(payload, largest)
    connection.sendall(len(payload).to_bytes(_LENGTH, "big") + payload)


def require_fits(payload: bytes, largest: int) -> None:
    """Raise `MessageInvalid` for a frame that is too large."""
    if len(payload) > largest:
        raise _too_large(len(payload), largest)


def receive(connection: socket.socket, largest: int) -> bytes | None:
    """Return the next frame, or None if the other side ended the connection."""
    length = announced(connection, largest)
    return None if length is None else exactly(connection, length)


def announced(connection: socket.socket, largest: int) -> int | None:
    """Return how long the next frame is, or None if the other side ended the connection. Raises `MessageInvalid`."""
    head = exactly(connection, _LENGTH)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if length > largest:
        raise _too_large(length, largest)
    return length


def passed_over(connection: socket.socket, length: int) -> bool:
    """Read a frame and keep nothing of it; False if the other side ended the connection."""
    while length:
        chunk = connection.recv(min(length, 1 << 16))
        if not chunk:
            return False
        length -= len(chunk)
    return True


def exactly(connection: socket.socket, count: int) -> bytes | None:
    """Read so many bytes; None if the other side ended the connection before."""
    content = bytearray()
    while len(content) < count:
        chunk = connection.recv(min(count - len(content), 1 << 16))
        if not chunk:
            return None
        content += chunk
    return bytes(content)


def _too_large(size: int, largest: int) -> MessageInvalid:
    return MessageInvalid(
        f"a frame of {size} bytes; the largest allowed is {largest}",
        where="frame",
        remedy="Both sides must run the same version of Siloscope.",
    )
