"""Which generation the silo's own index process answers from: it says so over its socket, to this hospital's account alone.

The gateway passes only questions on (`envelope.is_question`), so that nobody outside can ask this.
"""

import time

from silo_app.config import SiloHome
from silo_app.search.local import exchange

__all__ = ["GENERATION_ASKED", "open_generation", "wait_until_taken"]

GENERATION_ASKED = b"siloscope generation 1\0"
"""The frame to which an index process replies with the name of the generation that it has open; nothing if it has none."""
_REPLY_S = 2.0
_POLL_S = 0.1


def open_generation(home: SiloHome) -> str:
    """Return the generation that the index process has open, or "". It looks for a new one when it is asked.

    Raises `ProcessFailed` if no index process answers.
    """
    name = exchange(home.index_socket, GENERATION_ASKED, _REPLY_S)
    return name.decode() if name.isdigit() else ""  # a process of an earlier release refuses in its own words


def wait_until_taken(home: SiloHome, generation: str, *, timeout_s: float) -> bool:
    """Wait until the index process answers from this generation, or a newer one; return whether it does in time.

    Raises as `open_generation` does.
    """
    end = time.monotonic() + timeout_s
    while not (taken := int(open_generation(home) or 0) >= int(generation)) and time.monotonic() < end:
        time.sleep(_POLL_S)
    return taken
