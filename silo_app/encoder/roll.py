"""Who is where in a training, as the server knows it: the next round of every silo, and whose masks are here for which.

A silo takes part in a round when it has opened all but the last sum before it and its bundle of mask secrets for that
round has arrived. The others catch up beside the round, and are back in the one after.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import sha256

__all__ = ["Roll", "drawn"]


def drawn(ready: Collection[str], *, of: int, sample: float, least: int, seed: int, training_round: int) -> tuple[str, ...]:
    """Return which of the silos `ready` take part in a round: the share `sample` of `of` silos, but no fewer than `least`.

    The order of the draw follows from seed, round and names alone, so that a resumed job draws the same silos.
    """
    count = max(math.ceil(sample * of), least)
    by_lot = sorted(ready, key=lambda silo: sha256(f"{seed}/{training_round}/{silo}".encode()).digest())
    return tuple(sorted(by_lot[:count]))


@dataclass
class Roll:
    """The silos of one job; `masked` says whether a round needs their bundles."""

    members: tuple[str, ...] = ()
    masked: bool = True
    _next: dict[str, int] = field(default_factory=dict)
    _bundles: dict[int, dict[str, bytes]] = field(default_factory=dict)

    def enrol(self, silos: Iterable[str], next_round: int) -> None:
        """Begin with the silos of the job's roster, all at the same round."""
        self.members = tuple(sorted(silos))
        self._next = dict.fromkeys(self.members, next_round)

    def heard(self, silo: str, next_round: int | None, bundle: tuple[int, bytes] | None = None) -> None:
        """Take note of where a silo says that it is, and of its bundle for a round."""
        if silo not in self.members:
            return
        if next_round is not None:
            self._next[silo] = next_round
        if bundle is not None:
            self._bundles.setdefault(bundle[0], {})[silo] = bundle[1]

    def position(self, silo: str) -> int:
        """Return the round that a silo closes next, as far as it said."""
        return self._next[silo]

    def participants(self, number: int) -> tuple[str, ...]:
        """Return who can take part in round `number` when told of the sum of the round before with its order."""
        here = self._bundles.get(number, {})
        return tuple(
            silo for silo in self.members if number - 1 <= self._next[silo] <= number and (silo in here or not self.masked)
        )

    def bundles(self, number: int, silos: Collection[str]) -> dict[str, bytes]:
        """Return the bundles of `silos`, participants of round `number`; those of earlier rounds are forgotten."""
        self._bundles = {each: bundles for each, bundles in self._bundles.items() if each >= number}
        return {silo: self._bundles[number][silo] for silo in silos} if self.masked else {}
