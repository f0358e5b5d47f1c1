"""What a check says: how it stands, what was seen, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from silo_app.errors import SiloscopeError

__all__ = ["Checked", "Outcome", "guarded", "ok", "problem", "warning"]


class Outcome(StrEnum):
    """How a check stands."""

    OK = "ok"
    WARNING = "warning"
    """It works today."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    seen: str
    """What was found, with numbers; no identifier of a patient."""
    remedy: str = ""
    """What to do; empty if nothing."""


def ok(name: str, seen: str) -> Checked:
    """Return that all is well."""
    return Checked(name, Outcome.OK, seen)


def warning(name: str, seen: str, remedy: str) -> Checked:
    """Return what works today and may not tomorrow."""
    return Checked(name, Outcome.WARNING, seen, remedy)


def problem(name: str, seen: str, remedy: str) -> Checked:
    """Return what does not work."""
    return Checked(name, Outcome.PROBLEM, seen, remedy)


def guarded(name: str, check: Callable[[], Checked]) -> Checked:
    """Run a check; an error of ours, or of the system, is what it found: the other checks go on."""
    try:
        return check()
    except SiloscopeError as error:
        place = f"{error.where}: " if error.where else ""
        return problem(name, place + error.problem, error.remedy)
    except OSError as error:
        return problem(
            name,
            f"{error.filename or 'a file'}: {error.strerror or error}",
            "Let the account that runs Siloscope read and write there.",
        )
