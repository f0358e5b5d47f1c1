"""A `silo` command run as a process of its own: how it is called, and how its one JSON envelope is read.

Heavy work (embedding, ingest) runs this way, so that what ends it ends nothing else.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from silo_app.errors import ProcessFailed

__all__ = ["command_line", "data_of"]

_NOISE_LIMIT = 2000  # characters of a failed command's own words


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the process to start for `silo ARGUMENTS`, by this interpreter, with its result as JSON."""
    return [sys.executable, "-m", "silo_app.cli.main", *arguments, "--format", "json"]


def data_of(output: str, *, status: int, command: str, noise: str = "") -> Any:
    """Return the data of the envelope that `command`, ended with `status`, wrote to its standard output.

    `noise` is what it wrote to standard error. Raises `ProcessFailed` with the command's own error, or saying that it
    gave none.
    """
    try:
        envelope = json.loads(output)
    except json.JSONDecodeError:
        said = noise[-_NOISE_LIMIT:].strip() or "no result"
        raise ProcessFailed(
            f"`{command}` ended with status {status}: {said}",
            remedy="Run the command by itself to see all of its output.",
        ) from None
    if envelope.get("status") != "ok":
        error = envelope.get("error", {})
        raise ProcessFailed(
            f"`{command}`: {error.get('problem')} ({error.get('code')})",
            where=str(error.get("where", "")),
            remedy=str(error.get("remedy", "")),
        )
    return envelope["data"]
