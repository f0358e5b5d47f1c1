"""How alike is that, for people: the share of random pairs of different patients that are less alike.

A silo tells with its answers how alike random pairs of its own gallery are, as a few levels: so many percent of them are at
most so much alike. A level is told only where many pairs lie on either side of it, so that none says anything of one pair.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter, le, lt
from typing import Annotated

from pydantic import AfterValidator, Field

from silo_app.policy.likeness import PERCENTS, Likeness

__all__ = ["Level", "Levels", "levels_of", "share_beyond"]

Level = tuple[
    Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)], Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
]
"""A percentage of random pairs, and the similarity that they have at most."""
_DRAWN = 64_000
"""Pairs that an estimate draws at most (`index.likeness`: 2000 views with 32 partners each)."""
_A_VIEW = 32
_DIGITS = 10


def _ascending(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    if levels:  # every answer brings some: by columns, at a tenth of the cost of a look at each pair
        percents, similarities = zip(*levels, strict=True)
        if not (all(map(lt, percents, percents[1:])) and all(map(le, similarities, similarities[1:]))):
            raise ValueError("levels do not ascend")
    return levels


Levels = Annotated[tuple[Level, ...], Field(max_length=32), AfterValidator(_ascending)]
"""Ascending; empty where a silo tells none."""


@functools.lru_cache(maxsize=16)
def levels_of(likeness: Likeness, *, views: int, least: int) -> tuple[Level, ...]:
    """Return the levels of a gallery of `views` that have at least `least` random pairs below and above.

    A gallery of one patient has none: nobody is a stranger there, and its curve lies at -1.
    """
    if likeness.similar[-1] <= -1:
        return ()
    pairs = min(_DRAWN, views * _A_VIEW, views * (views - 1) // 2)
    return tuple(
        (percent, max(-1.0, min(1.0, similarity)))  # half precision makes images of one file a little more than alike
        for percent, similarity in zip(PERCENTS, likeness.similar, strict=True)
        if 0 < percent < 100 and min(percent, 100 - percent) / 100 * pairs >= least
    )


def share_beyond(levels: Sequence[Level], similarity: float) -> float | None:
    """Return the percentage of random pairs that are less alike, rounded down to a tenth; None without levels.

    Below the first level it is 0 and from the last on that level's percentage: "more alike than at least".
    """
    if not levels:
        return None
    place = bisect_right(levels, similarity, key=itemgetter(1))
    if place == 0:
        return 0.0
    if place == len(levels):
        return levels[-1][0]
    (low, first), (high, last) = levels[place - 1], levels[place]
    share = low + (high - low) * (similarity - first) / (last - first)
    return math.floor(round(share * _DIGITS, 6)) / _DIGITS
