"""Noise that is drawn once for each subject and for ever: whoever asks again learns nothing new.

Two-sided geometric noise that is computed from a secret of the silo and from what it belongs to, not from the query
("permanent randomised response", Erlingsson, Pihur and Korolova, RAPPOR, 2014).
"""

import contextlib
import hashlib
import hmac
import math
import os
import secrets
from pathlib import Path

from silo_app.durable import PRIVATE, private_folder, read_private_bytes, sync_folder

__all__ = ["keyed_noise", "load_secret"]

_BYTES = 32


def keyed_noise(secret: bytes, kind: str, subject: str, epsilon: float) -> int:
    """Return the noise that belongs to `subject`: k with probability proportional to exp(-epsilon * |k|)."""
    digest = hmac.digest(secret, f"{kind}\0{subject}".encode(), hashlib.sha256)
    rising, falling = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:16]))
    return _geometric(rising, epsilon) - _geometric(falling, epsilon)


def load_secret(path: Path) -> bytes:
    """Return the secret in a private file, which is made where it is missing. Raises `ConfigInvalid`."""
    private_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        temporary = path.with_suffix(f".{os.getpid()}.part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
        try:
            os.write(descriptor, secrets.token_bytes(_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, path)  # unlike a rename it never replaces a secret that is there
        finally:
            temporary.unlink()
        sync_folder(path.parent)
    return read_private_bytes(path, _BYTES)


def _geometric(uniform: int, epsilon: float) -> int:
    """Return how many times in a row a coin of probability exp(-epsilon) fell, from 64 uniform bits."""
    return math.floor(math.log((uniform + 0.5) / 2**64) / -epsilon)
