"""A file that is in memory, for libraries that read and write nothing else: SEAL, for one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["content_of", "memory_file"]


@contextmanager
def memory_file(name: str) -> Iterator[tuple[int, str]]:
    """Yield the descriptor and the path of an empty file that is gone with the block.

    Where the system has no files in memory (`memfd_create`, Linux), it is a temporary one of mode 0600: its bytes may then
    reach a disk.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(f"siloscope-{name}", os.MFD_CLOEXEC)
        try:
            yield descriptor, f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file.fileno(), file.name


def content_of(descriptor: int) -> bytes:
    """Return all that a file holds, wherever its reader or writer is."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
