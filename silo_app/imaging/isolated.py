"""Read one file in a process of its own: for files from anywhere, such as a query."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.catalogue import ContentKey
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.pool import decode_all
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.worker import Request

__all__ = ["read_isolated"]

SECONDS = 30


def read_isolated(path: Path, *, seconds: int = SECONDS) -> NDArray[np.float32]:
    """Return the radiograph of a file as an encoder sees it (`cache.as_cached`), float32 (H, W) in [0, 1].

    A decoder that crashes or hangs on a hostile file costs this call and not the caller's process; starting the
    process costs about half a second. Raises `ImageUnsupported` as `read_radiograph` does.
    """
    with tempfile.TemporaryDirectory(prefix="siloscope-") as folder:  # mode 0700
        cache = RadiographCache(Path(folder))
        request = Request(path=str(path), cache=folder, content_key=ContentKey.fresh().hex, seconds=seconds)
        (reply,) = decode_all([request], workers=1)
        if "digest" in reply:
            return cache.read(reply["digest"])
    raise refusal(
        RefusalReason(reply.get("reason", RefusalReason.DECODE_FAILED)),
        reply.get("detail", "the decoded image cannot be stored"),
        where=str(path),
    )
