"""What the federation's server says of itself, asked through this silo's gateway."""

import time
from collections.abc import Callable

from silo_app.config import SiloHome
from silo_app.doctor.checked import Checked, ok, problem, warning
from silo_app.errors import SiloscopeError
from silo_app.search.ask import Asker
from silo_app.search.messages import Silos, Who
from silo_app.search.replays import FRESH_S

__all__ = ["clock"]

_NAME = "server's clock"
_BUDGET_MS = 3000
_SHARE = 0.25
"""Of the difference at which other silos refuse our queries."""
_REMEDY = "Set the clock, by NTP, here or at the server: a query that seems older than two minutes is refused as a replay."


def clock(home: SiloHome, *, ask: Callable[[], Silos] | None = None, now: Callable[[], float] = time.time) -> Checked:
    """Compare our clock with the server's; without an answer nothing is known, and that is said."""
    start = now()
    try:
        told = (ask or _asked(home))()
    except SiloscopeError as error:
        return warning(
            _NAME,
            f"not compared: {error.problem}",
            "Start this silo's site, and the job `search` (`silo job submit jobs/search`); then look again.",
        )
    end = now()
    # its clock was read between the two: what it is ahead at least
    ahead = told.at_ms / 1000
    apart = max(start - ahead, ahead - end, 0.0)
    seen = f"{apart:.1f} s apart from ours, or less than the {max(0.0, end - start):.1f} s that asking took"
    if apart > FRESH_S:
        return problem(_NAME, seen, _REMEDY)
    return warning(_NAME, seen, _REMEDY) if apart > _SHARE * FRESH_S else ok(_NAME, seen)


def _asked(home: SiloHome) -> Callable[[], Silos]:
    return lambda: Asker.of(home).exchange(Who(), Silos, _BUDGET_MS)
