"""The bytes of a file, and no more of them than a file may have; without what it takes to understand them."""

import os
from pathlib import Path
from typing import BinaryIO

from silo_app.imaging.refusal import RefusalReason, refusal

__all__ = ["MAX_FILE_BYTES", "read_bytes"]

MAX_FILE_BYTES = 256 << 20
"""Twice a 64-megapixel radiograph of 16 bits; also the bound on what a deflated file may grow to."""


def read_bytes(source: Path | BinaryIO | bytes) -> bytes:
    """Read at most one byte more than a file may have, so that a huge one is refused and not loaded."""
    if isinstance(source, bytes):
        return source
    try:
        if isinstance(source, Path):
            if not source.is_file():  # a pipe would wait for ever; a folder, or nothing at all
                raise refusal(RefusalReason.UNREADABLE, "there is no such file, or it is not a regular one")
            with source.open("rb") as file:
                # Asked for what there is: asked for all that there may be, Python would first make room for it.
                return file.read(min(os.fstat(file.fileno()).st_size, MAX_FILE_BYTES) + 1)
        return source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise refusal(RefusalReason.UNREADABLE, f"the file cannot be read ({type(error).__name__})") from None
