"""When is a silo not worth waiting for? After failures in a row it is left alone, and looked at again soon.

No query waits for a silo that is left alone: its state is named at once, as it was last seen. A probe that costs no query
finds out when it is back; then one query is tried, and one failure more is enough to leave it alone for longer.
"""

import threading
from collections.abc import Callable

from silo_app.search.messages import SiloState

__all__ = ["Breaker"]

FAILURES = 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 3.0
_FAILED = {SiloState.LATE, SiloState.UNREACHABLE, SiloState.ERROR}


class Breaker:
    """What is known of one silo; safe from many threads.

    No reply within `patience_s` is a failure; within less it says nothing of the silo. Otherwise one asker in a hurry
    could have a silo left alone for all.
    """

    def __init__(self, clock: Callable[[], float], patience_s: float) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._left_alone: SiloState | None = None
        self._probe_at = 0.0
        self._on_trial = False

    @property
    def left_alone(self) -> SiloState | None:
        """How the silo was last seen, if nobody should wait for it now."""
        return self._left_alone

    def asked(self, state: SiloState, within_s: float) -> None:
        """Note how the silo was found by a message, not by each of its queries, that left it so much time to reply."""
        if state not in _FAILED:
            self.answered()
        elif state is not SiloState.LATE or within_s >= self._patience_s:
            self.failed(state)

    def answered(self) -> None:
        """Note that the silo replied to a query in time, whatever it said."""
        with self._lock:
            self._failures, self._pause_s = 0, FIRST_PAUSE_S
            self._left_alone, self._on_trial = None, False

    def failed(self, state: SiloState) -> None:
        """Note that a message to the silo came to nothing."""
        with self._lock:
            self._failures += 1
            if self._left_alone is not None:
                self._left_alone = state
            elif self._on_trial or self._failures >= FAILURES:
                self._leave_alone(state)

    def wants_probe(self) -> bool:
        """Return whether it is time to look for the silo again; the one who is told so must do it."""
        with self._lock:
            if self._left_alone is None or self._clock() < self._probe_at:
                return False
            self._probe_at = self._clock() + LONGEST_PAUSE_S  # nobody else meanwhile
            return True

    def probed(self, state: SiloState) -> None:
        """Note what a probe found."""
        with self._lock:
            if self._left_alone is None:
                return
            if state is SiloState.ANSWERED:
                self._left_alone, self._on_trial = None, True
            else:
                self._leave_alone(state)

    def _leave_alone(self, state: SiloState) -> None:
        self._left_alone, self._on_trial = state, False
        self._probe_at = self._clock() + self._pause_s
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
