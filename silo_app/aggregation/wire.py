"""What an update or a sum looks like on the wire: a header that says what it is, then the ciphertexts (or plain floats)."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgpack
import numpy as np
from numpy.typing import NDArray

from silo_app.errors import UpdateRefused

__all__ = ["Header", "read", "write"]

_MAGIC = b"SILOSUM1"
_LENGTH = 4
MAX_HEADER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Header:
    """What the server may know of a message: whose, of which round, under which key; checked before anything is added."""

    kind: Literal["update", "sum"]
    encryption: Literal["bfv", "none"]
    job: str
    round_number: int
    key_id: str
    layout: str
    bits: int
    parts: int
    """How many ciphertexts follow."""
    participants: tuple[str, ...]
    """Who was asked in this round: the weights in it are shares of theirs."""
    silos: tuple[str, ...]
    """Whose updates are in it."""


def write(header: Header, parts: Iterable[bytes]) -> NDArray[np.uint8]:
    """Return the message, uint8 (bytes,)."""
    text = msgpack.packb(asdict(header))
    chunks = [_MAGIC, len(text).to_bytes(_LENGTH, "big"), text]
    for part in parts:
        chunks += [len(part).to_bytes(_LENGTH, "big"), part]
    return np.frombuffer(b"".join(chunks), np.uint8)


def read(message: NDArray[np.uint8] | bytes) -> tuple[Header, Iterator[bytes]]:
    """Return the header and the parts of a message. Raises `UpdateRefused`; the parts are checked as they are read."""
    view = _viewed(message)
    start = len(_MAGIC) + _LENGTH
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise _refused("it is no update of this version")
    length = int.from_bytes(view[len(_MAGIC) : start], "big")
    if length > MAX_HEADER_BYTES:
        raise _refused("its header is too large")
    header = _header(bytes(view[start : start + length]))
    return header, _parts(view[start + length :], header.parts)


def _viewed(message: Any) -> memoryview:
    if isinstance(message, np.ndarray):
        if message.dtype != np.uint8 or message.ndim != 1:
            raise _refused(f"it is an array of {message.dtype} with {message.ndim} dimensions")
        message = np.ascontiguousarray(message)
    try:
        return memoryview(message).cast("B")
    except TypeError:
        raise _refused(f"it is a {type(message).__name__}") from None


def _header(text: bytes) -> Header:
    try:
        fields = msgpack.unpackb(text)
        fields["participants"], fields["silos"] = tuple(fields["participants"]), tuple(fields["silos"])
        header = Header(**fields)
    except Exception:  # noqa: BLE001  (foreign bytes: msgpack and the constructor raise many kinds)
        raise _refused("its header cannot be read") from None
    texts = (
        header.kind,
        header.encryption,
        header.job,
        header.key_id,
        header.layout,
        *header.participants,
        *header.silos,
    )
    numbers = (header.round_number, header.bits, header.parts)
    if not all(isinstance(t, str) for t in texts) or not all(type(n) is int and n >= 0 for n in numbers):
        raise _refused("its header has values of other types")
    return header


def _parts(view: memoryview, count: int) -> Iterator[bytes]:
    start = 0
    for _ in range(count):
        length = int.from_bytes(view[start : start + _LENGTH], "big")
        start += _LENGTH
        if not length or start + length > len(view):
            raise _refused("it ends too early")
        yield bytes(view[start : start + length])
        start += length
    if start != len(view):
        raise _refused("there is more in it than its header says")


def _refused(problem: str) -> UpdateRefused:
    return UpdateRefused(
        f"the message was refused: {problem}", remedy="Nothing of it was used; the silo answers the next round."
    )
