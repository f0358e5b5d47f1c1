"""How much privacy a training spends: epsilon of Poisson-sampled Gaussian steps, for whole patients.

A step draws each patient with probability `rate`, clips what that patient gives, and adds Gaussian noise of `noise` times
the clipping norm. The privacy of many such steps together is Opacus' numerical composition of privacy loss random
variables (Gopi, Lee and Wutschitz, "Numerical composition of differential privacy", NeurIPS 2021), for neighbouring silos
that differ by one patient with all images.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from silo_app.errors import ConfigInvalid, NotReady

__all__ = ["LARGEST_EPSILON", "Steps", "epsilon_of", "louder", "noise_for"]

LARGEST_EPSILON = 100.0
"""Above this nothing is promised that could be told from nothing."""
_FINE, _COARSE, _LARGE = 0.01, 0.1, 10.0
"""How wide the bound on epsilon is below and above `_LARGE`: a grid that is finer there needs gigabytes."""
_TOLERANCE = 1.01
_ROUGHLY = 1.04
"""While a job runs: composing unlike steps takes seconds each time."""
_LARGEST_NOISE = 1e4
_LOUDEST = 2.0
"""How much more noise than planned rounds may have to make up for some that were trained again."""


@dataclass(frozen=True, slots=True)
class Steps:
    """So many steps that drew each patient with probability `rate` and added noise of `noise` clipping norms."""

    noise: float
    rate: float
    steps: int


def epsilon_of(spent: Iterable[Steps], delta: float) -> float:
    """Return an upper bound on the epsilon of all steps together at `delta`; infinity above LARGEST_EPSILON.

    The bound is 0.01 wide, 0.1 above an epsilon of 10.
    """
    history = [(one.noise, one.rate, one.steps) for one in _merged(spent)]
    if not history:
        return 0.0
    if any(noise <= 0 for noise, _, _ in history):
        return math.inf
    fast, exact = _accountants()
    fast.history = exact.history = history
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they take logarithms of zero on their way, and say so
        above = float(fast.get_epsilon(delta=delta))  # Renyi's bound: never too small, and made in no time
        if not above <= LARGEST_EPSILON:
            return math.inf
        width = _FINE if above <= _LARGE else _COARSE
        return min(above, float(exact.get_epsilon(delta=delta, eps_error=width)))


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the least noise, in clipping norms, with which `steps` steps spend at most `epsilon`.

    By bisection to 1 %, from above. Raises `ConfigInvalid` if no noise is enough.
    """
    low, high = 0.0, 1.0
    while epsilon_of([Steps(high, rate, steps)], delta) > epsilon:
        low, high = high, 2 * high
        if high > _LARGEST_NOISE:
            raise ConfigInvalid(
                f"no noise gives {steps} steps with {rate:.3g} of the patients each an epsilon of {epsilon:g}",
                where="plan: privacy.epsilon",
                remedy="Allow a larger epsilon, or train fewer steps.",
            )
    return _least(lambda noise: epsilon_of([Steps(noise, rate, steps)], delta) <= epsilon, low, high)


def louder(rest: Steps, spent: Sequence[Steps], epsilon: float, delta: float) -> Steps:
    """Return the steps `rest` with no more noise than they need to spend, after `spent`, at most `epsilon` in all.

    As they are where that is enough, and where not even twice their noise is: so much would spoil what they train.
    """

    def fits(noise: float) -> bool:
        return epsilon_of([*spent, replace(rest, noise=noise)], delta) <= epsilon

    low, high = rest.noise, _LOUDEST * rest.noise
    if fits(low) or not fits(high):
        return rest
    return replace(rest, noise=_least(fits, low, high, _ROUGHLY))


def _least(fits: Callable[[float], bool], low: float, high: float, tolerance: float = _TOLERANCE) -> float:
    """Return the least noise that fits, by bisection from above; `high` fits and `low` does not."""
    while high > tolerance * low:
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _accountants() -> tuple[Any, Any]:
    """Return Opacus' accountants: a fast one and an exact one. Raises `NotReady` if it is not installed."""
    try:
        from opacus.accountants import PRVAccountant, RDPAccountant
    except ImportError:
        raise NotReady(
            "the accountant of differential privacy is not installed", remedy="Install it: pip install 'siloscope[dp]'"
        ) from None
    return RDPAccountant(), PRVAccountant()


def _merged(spent: Iterable[Steps]) -> Sequence[Steps]:
    counts: dict[tuple[float, float], int] = {}
    for one in spent:
        if one.steps:
            counts[one.noise, one.rate] = counts.get((one.noise, one.rate), 0) + one.steps
    return [Steps(noise, rate, steps) for (noise, rate), steps in sorted(counts.items())]
