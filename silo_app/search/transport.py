"""How the broker reaches a silo: one call, bytes out and bytes back, within a budget."""

from typing import Protocol

__all__ = ["SiloLate", "SiloUnreachable", "Transport"]


class SiloLate(Exception):
    """The silo did not reply within the budget."""


class SiloUnreachable(Exception):
    """The silo is not connected, or nobody there listens."""


class Transport(Protocol):
    """Asks one silo. Called from many threads at once, also several times for one silo.

    `ask` returns the reply's bytes, whatever they are: a stranger's until they are decoded. It raises `SiloLate` after
    about `budget_s` seconds and `SiloUnreachable` as soon as that is known. An implementation that hangs longer than
    the budget delays nobody: the broker gives up on its own clock.
    """

    def ask(self, silo: str, message: bytes, budget_s: float) -> bytes:
        """Send `message` to `silo` and return the reply."""
        ...
