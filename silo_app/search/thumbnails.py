"""Small pictures of released cases: made when a silo answers, where its policy releases them, and checked by the asker.

A picture is made of a decoded radiograph that was read for what is burned into it, and found to name nobody. It goes with
a case that is shown and with nothing else: what is kept back has none.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CaseId
from silo_app.config import ReleaseSettings
from silo_app.errors import MessageInvalid, NotReady
from silo_app.policy.release import shows_thumbnail
from silo_app.search.answer import CardLookup
from silo_app.search.messages import MAX_THUMBNAIL, SiloAnswer

__all__ = ["Pictures", "illustrated", "require_thumbnails", "thumbnail"]

Pictures = Callable[[str], NDArray[np.float32]]
"""The radiograph of a digest, float32 (H, W) in [0, 1]; raises `NotReady` where there is none."""

MOST = 50
"""An answer with more hits has pictures for the first ones."""
_LARGEST_SIDE = 128
_QUALITIES = (85, 60, 30)


def illustrated(answer: SiloAnswer, settings: ReleaseSettings, view_of: CardLookup, cache: Path) -> SiloAnswer:
    """Return an answer with a picture for each of its first hits that may have one."""
    if "thumbnail" not in settings.fields:
        return answer
    from silo_app.imaging.cache import RadiographCache

    read = RadiographCache(cache).read
    hits = [
        hit.model_copy(update={"thumbnail": _picture(settings, view_of, hit.case, read)}) if place < MOST else hit
        for place, hit in enumerate(answer.hits)
    ]
    return answer.model_copy(update={"hits": tuple(hits)})


def thumbnail(pixels: NDArray[np.float32], side: int) -> bytes:
    """Return a radiograph, float32 (H, W) in [0, 1], as a gray JPEG of at most `side` pixels and `MAX_THUMBNAIL` bytes.

    It holds pixels and nothing else; one that stays too large is left out: b"".
    """
    from PIL import Image

    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    image.thumbnail((side, side), Image.Resampling.BOX)
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_THUMBNAIL:
            return file.getvalue()
    return b""


def require_thumbnails(answer: SiloAnswer) -> None:
    """Raise `MessageInvalid` for a picture that is no small gray JPEG."""
    for hit in answer.hits:
        if hit.thumbnail:
            _require_thumbnail(hit.thumbnail)


def _picture(settings: ReleaseSettings, view_of: CardLookup, case: str, read: Pictures) -> bytes:
    view = view_of(CaseId(case))
    if view is None or not shows_thumbnail(settings, view):
        return b""
    try:
        return thumbnail(read(view.digest), settings.thumbnail_side)
    except NotReady:  # the cache is made anew by the next ingest; the case itself is sound
        return b""


def _require_thumbnail(content: bytes) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            fits = image.mode == "L" and max(image.size) <= _LARGEST_SIDE  # before a pixel is decoded
            if fits:
                image.load()
    except Exception:  # noqa: BLE001  (Pillow raises many kinds on foreign bytes)
        fits = False
    if not fits:
        raise MessageInvalid(
            "a picture is no gray JPEG of 128 pixels", where="answer", remedy="Nothing of the answer was used."
        )
