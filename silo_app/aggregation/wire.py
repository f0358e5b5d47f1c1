"""Messages of a round: a header that says all that must agree, and a body of raw bytes.

    b"SILO"  version uint16  header length uint32  SHA-256 of header  header (msgpack map)  body    (little-endian)

The body of an encrypted message is c0 of all blocks (`ring.to_wire`) and one seed a block; a sum has the seeds of every
contributor, in the order of its header. The first block holds the numbers (`tallies`), those behind it the update. A plain
body is the update, float32, and the numbers, uint64.
"""

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from silo_app.errors import ProtocolError, UpdateRefused

__all__ = ["Header", "join", "parse_map", "split"]

MAGIC = b"SILO"
VERSION = 3
PREFIX = struct.Struct("<4sHI32s")
HEADER_LIMIT = 64 * 1024
NAME_LIMIT = 128
KINDS = {"update": "an update", "sum": "a sum"}
ENCRYPTIONS = ("bfv", "none")
CONTENTS = ("update", "statistics", "numbers")
NUMBERS_LIMIT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a message of a round is and belongs to."""

    kind: str
    """"update" of one silo, or "sum" of several."""
    encryption: str
    """"bfv", or "none" for plain numbers."""
    content: str
    """"update" (with numbers), or numbers alone: "statistics", from which weights come, or other "numbers"."""
    job: str
    round_number: int
    key: bytes
    """Id of the BFV key; empty when plain."""
    layout: bytes
    size: int
    """P, the values of the layout; 0 for numbers alone."""
    bits: int
    """Width of a field; 32 when plain, 0 for numbers alone."""
    numbers: tuple[str, ...]
    """Names of the numbers that are summed beside the update, sorted."""
    masks: bytes
    """Digest of the participants' mask bundles; empty when plain."""
    basis: bytes
    """Digest of all that the sums before this round were, on which scales and weights rest."""
    participants: tuple[str, ...]
    """Over whom the weights sum to 1, sorted."""
    silos: tuple[str, ...]
    """Who is in this message, sorted: one for an update."""
    body: bytes
    """SHA-256 of the body."""

    def packed(self) -> bytes:
        """Return the header as it travels."""
        return bytes(msgpack.packb(asdict(self)))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the header, and so of the whole message."""
        return sha256(self.packed()).digest()

    @property
    def agreement(self) -> tuple[object, ...]:
        """What must be the same in all messages that are added to one sum."""
        own = {"kind", "silos", "body"}
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in own)


TYPES: dict[str, type] = {
    "kind": str,
    "encryption": str,
    "content": str,
    "job": str,
    "round_number": int,
    "key": bytes,
    "layout": bytes,
    "size": int,
    "bits": int,
    "numbers": list,
    "masks": bytes,
    "basis": bytes,
    "participants": list,
    "silos": list,
    "body": bytes,
}


def body_digest(body: NDArray[np.uint8]) -> bytes:
    """Return what `Header.body` says of `body`, uint8 (n,)."""
    return sha256(np.ascontiguousarray(body).data).digest()


def join(header: Header, body: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the message of `header` and `body`, uint8 (n,)."""
    packed = header.packed()
    prefix = PREFIX.pack(MAGIC, VERSION, len(packed), header.digest)
    return np.concatenate([np.frombuffer(prefix + packed, dtype=np.uint8), body])


def split(message: NDArray[np.uint8] | bytes) -> tuple[Header, NDArray[np.uint8]]:
    """Return header and body (a view) of a message, uint8 (n,). Raises `UpdateRefused` for anything malformed."""
    octets = _octets(message)
    if len(octets) < PREFIX.size:
        raise _refused(f"it has {len(octets)} bytes")
    magic, version, length, digest = PREFIX.unpack(octets[: PREFIX.size].tobytes())
    if magic != MAGIC or version != VERSION:
        raise _refused(f"it starts with {magic!r}, version {version}, instead of {MAGIC!r}, version {VERSION}")
    if not 0 < length <= min(HEADER_LIMIT, len(octets) - PREFIX.size):
        raise _refused(f"its header claims {length} bytes")
    packed = octets[PREFIX.size : PREFIX.size + length].tobytes()
    if sha256(packed).digest() != digest:
        raise _refused("its header was damaged on its way")
    header = _header(packed)
    body = octets[PREFIX.size + length :]
    if body_digest(body) != header.body:
        raise _refused("its body is not what its header was made for", silos=header.silos)
    return header, body


def _octets(message: NDArray[np.uint8] | bytes) -> NDArray[np.uint8]:
    if isinstance(message, np.ndarray):
        if message.dtype != np.uint8 or message.ndim != 1:
            raise _refused(f"it is an array {message.dtype} {message.shape} instead of uint8 (n,)")
        return np.ascontiguousarray(message)
    return np.frombuffer(message, dtype=np.uint8)


def _header(packed: bytes) -> Header:
    content = parse_map(packed, TYPES, refuse=UpdateRefused, what="the header of a round's message")
    for key in ("participants", "silos", "numbers"):
        names = content[key]
        if not 0 < len(names) <= NUMBERS_LIMIT or any(not isinstance(name, str) or len(name) > NAME_LIMIT for name in names):
            raise _refused(f"its {key} are not names")
        if names != sorted(set(names)):
            raise _refused(f"its {key} are not sorted, or name one twice")
        content[key] = tuple(names)
    header = Header(**content)
    if header.kind not in KINDS or header.encryption not in ENCRYPTIONS:
        raise _refused(f"its kind is {header.kind[:20]!r}, its encryption {header.encryption[:20]!r}")
    if header.content not in CONTENTS or header.size < 0 or (header.size > 0) != (header.content == "update"):
        raise _refused(f"its content is {header.content[:20]!r}, its size {header.size}")
    if header.round_number < 0 or not set(header.silos) <= set(header.participants):
        raise _refused(f"its round is {header.round_number}, or it names silos beside the round")
    return header


def parse_map(packed: bytes, types: Mapping[str, type], *, refuse: type[ProtocolError], what: str) -> dict[str, Any]:
    """Return the msgpack map in `packed` if it has exactly the keys and types of `types`; raise `refuse` if not."""
    try:
        content = msgpack.unpackb(packed)
    except (ValueError, RecursionError, msgpack.UnpackException):
        content = None
    if (
        not isinstance(content, dict)
        or content.keys() != types.keys()
        or any(type(content[key]) is not kind for key, kind in types.items())
    ):
        raise refuse(
            f"{what} is damaged, or of another version of siloscope",
            remedy="Nothing was used. Compare the versions of siloscope at the silos and the server.",
        )
    return content


def _refused(problem: str, silos: tuple[str, ...] = ()) -> UpdateRefused:
    return UpdateRefused(
        f"a round's message was refused: {problem}",
        where=", ".join(silos)[:NAME_LIMIT],
        remedy="Nothing was used. Compare the versions of siloscope at the silos and the server.",
    )
