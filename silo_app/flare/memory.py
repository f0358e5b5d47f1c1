"""Give freed memory back to the system at once, in processes through which updates pass.

glibc keeps what was freed, up to 32 MiB a piece, for the next request of its kind: its threshold grows with every large
block that is freed (`mallopt(3)`, M_MMAP_THRESHOLD). A message of an update is such a block, and NVFlare's threads copy it
many times; a server kept nearly twice the memory that it used at most.
"""

import ctypes
import sys

__all__ = ["give_back_freed"]

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 20
"""Bytes of the smallest block that is returned as soon as it is freed."""


def give_back_freed() -> bool:
    """Set the threshold for this process; return whether it was set. Other C libraries than glibc are left as they are."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _LARGE))
