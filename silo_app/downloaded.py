"""The JSON record in a job's downloaded folder, read with care: it came from a server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from silo_app.errors import MessageInvalid, NotReady, SiloscopeError

__all__ = ["read_downloaded"]

_R = TypeVar("_R")


def read_downloaded(path: Path, name: str, *, what: str, largest: int, read: Callable[[Any], _R]) -> _R:
    """Return what `read` makes of the record in a file, or of the one called `name` in a downloaded job's folder.

    `what` is the record of what, `largest` how many bytes it may have. `read` may raise what comes of content in another
    form. Raises `NotReady` if there is no record, `MessageInvalid` if it is not one of this version.
    """
    file = next(iter(sorted(path.rglob(name))), path / name) if path.is_dir() else path
    try:
        if file.stat().st_size > largest:
            raise _invalid(file, what, "it is too large")
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise NotReady(
            f"there is no record of {what}", where=str(path), remedy="Name the folder that `silo job download JOB` printed."
        ) from None
    except (ValueError, RecursionError):
        raise _invalid(file, what, "it is no JSON") from None
    try:
        return read(content)
    except SiloscopeError as error:
        raise _invalid(file, what, error.problem) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(file, what, f"{type(error).__name__}: {error}") from None


def _invalid(file: Path, what: str, why: str) -> MessageInvalid:
    return MessageInvalid(
        f"this is no record of {what}: {why}", where=str(file), remedy="Download the job again, with the same version."
    )
