"""Decoded radiographs on the silo's own disk, named by the digest of the file that they came from.

A radiograph can always be decoded again, so a file here is not fsynced (thousands of fsyncs would cost more than the
decoding); it carries a checksum instead, is renamed into place whole, and one that does not verify is thrown away.
Eight bits are what a window was made for: the display of PS3.14 that a radiologist reads from.
"""

import contextlib
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from silo_app.durable import PRIVATE, private_folder
from silo_app.errors import NotReady
from silo_app.imaging.resample import MAX_SIDE

if TYPE_CHECKING:
    from silo_app.imaging.radiograph import Radiograph

__all__ = ["PREPROCESSING", "RadiographCache", "as_cached"]

PREPROCESSING = f"siloscope-radiograph/1 area-mean max-side={MAX_SIDE} uint8"
"""What was done to every image before an encoder sees it; part of the encoder version. Change it with the pipeline."""

_CHECKSUM_BYTES = 4
_NAME = re.compile(r"[0-9a-f]{64}")
_SUFFIX = ".npy"


def as_cached(radiograph: "Radiograph") -> NDArray[np.float32]:
    """Return the pixels exactly as `RadiographCache.read` would after a `write`, float32 (H, W) in [0, 1].

    A query goes through this, so that a cached image and the same image as a query are one and the same input.
    """
    return _restored(_quantized(radiograph))


class RadiographCache:
    """A folder `<root>/<first two digits>/<digest>.npy`: a uint8 (H, W) array and the CRC-32 of its bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where the radiograph of `digest` (64 hex digits) lies, or would lie."""
        if not _NAME.fullmatch(digest):
            raise ValueError("a digest has 64 hexadecimal digits")
        return self.root / digest[:2] / f"{digest}{_SUFFIX}"

    def __contains__(self, digest: str) -> bool:
        """Return whether there is one, and not an empty file that a power cut left; `read` checks whether it is sound."""
        try:
            return self.path(digest).stat().st_size > 0
        except OSError:
            return False

    def write(self, digest: str, radiograph: "Radiograph") -> NDArray[np.uint8]:
        """Store a radiograph and return what is stored, (H, W); a reader sees all of it or none of it."""
        path = self.path(digest)
        private_folder(path.parent)
        pixels = _quantized(radiograph)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.save(file, pixels, allow_pickle=False)
                file.write(zlib.crc32(pixels.data).to_bytes(_CHECKSUM_BYTES, "little"))
                os.fchmod(file.fileno(), PRIVATE)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return pixels

    def read(self, digest: str) -> NDArray[np.float32]:
        """Return the radiograph, float32 (H, W) in [0, 1].

        Raises `NotReady` if it is missing or damaged; a damaged one is removed, so that `silo ingest` makes it anew.
        """
        try:
            pixels = self._loaded(digest)
        except FileNotFoundError:
            raise _absent(digest, "missing") from None
        if pixels is None:
            with contextlib.suppress(OSError):  # whoever reads may not be who writes
                self.path(digest).unlink(missing_ok=True)
            raise _absent(digest, "damaged")
        return _restored(pixels)

    def is_sound(self, digest: str) -> bool:
        """Return whether the radiograph is there and as it was written; changes nothing."""
        try:
            return self._loaded(digest) is not None
        except FileNotFoundError:
            return False

    def _loaded(self, digest: str) -> NDArray[np.uint8] | None:
        """Return the stored pixels (H, W), or None if they are damaged. Raises `FileNotFoundError`."""
        try:
            with self.path(digest).open("rb") as file:
                pixels: NDArray[np.uint8] = np.load(file, allow_pickle=False)
                checksum = int.from_bytes(file.read(_CHECKSUM_BYTES + 1), "little")
            sound = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.flags.c_contiguous
            sound = sound and checksum == zlib.crc32(pixels.data)
        except FileNotFoundError:
            raise
        except Exception:  # noqa: BLE001  (numpy parses a header as Python, which fails in many ways)
            return None
        return pixels if sound else None

    def digests(self) -> Iterator[str]:
        """Yield the digest of every radiograph that is stored."""
        for path in self.root.glob(f"[0-9a-f][0-9a-f]/*{_SUFFIX}"):
            if _NAME.fullmatch(path.stem):
                yield path.stem

    def discard(self, digest: str) -> None:
        """Remove a radiograph if there is one."""
        self.path(digest).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed writer left behind; only while nobody writes."""
        for part in self.root.glob("[0-9a-f][0-9a-f]/.*.part"):
            part.unlink(missing_ok=True)


def _quantized(radiograph: "Radiograph") -> NDArray[np.uint8]:
    levels = np.clip(radiograph.pixels, 0, 1, order="C")
    levels *= np.float32(255)
    return np.rint(levels, out=levels).astype(np.uint8)


def _restored(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(255)


def _absent(digest: str, how: str) -> NotReady:
    return NotReady(
        f"the decoded radiograph {digest[:12]} is {how}",
        remedy="Run `silo ingest`: it decodes again what is not in the cache.",
    )
