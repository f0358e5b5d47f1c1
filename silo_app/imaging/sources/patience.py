"""An archive that restarts is waited for; one that stays away is given up with what to do."""

import time
from collections.abc import Callable
from typing import TypeVar

from silo_app.errors import SourceUnreachable

__all__ = ["Outage", "patiently", "unreachable"]

T = TypeVar("T")
_FIRST_S = 0.2
_LONGEST_S = 30.0


class Outage(Exception):
    """What may be over in a moment; its text goes into the error if it is not. Holds no identifier."""


def patiently(call: Callable[[], T], *, patience_s: float, where: str) -> T:
    """Return what `call` returns, trying again after an `Outage`, ever more slowly, for `patience_s` seconds.

    Raises `SourceUnreachable` after that.
    """
    deadline, pause = time.monotonic() + patience_s, _FIRST_S
    while True:
        try:
            return call()
        except Outage as error:
            if time.monotonic() + pause > deadline:
                raise unreachable(f"{error} (tried for {patience_s:g} s)", where) from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)


def unreachable(problem: str, where: str, remedy: str = "") -> SourceUnreachable:
    """Return the error of an archive that cannot be used now."""
    return SourceUnreachable(
        problem,
        where=where,
        remedy=remedy or "Nothing was removed; what was read stays. Run `silo ingest` again when the archive answers.",
    )
