"""Discrete Laplace noise, drawn exactly: no floating point, so no bits that give a true count away (Mironov 2012).

The sampler is algorithm 2 of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy" (2020).
"""

import secrets
from fractions import Fraction

__all__ = ["discrete_laplace"]


def discrete_laplace(scale: Fraction) -> int:
    """Return a whole number k with probability proportional to exp(-|k| / scale)."""
    if scale <= 0:
        raise ValueError("the scale of noise is positive")
    t, s = scale.numerator, scale.denominator
    while True:
        offset = secrets.randbelow(t)
        if not _coin(offset, t):
            continue
        turns = 0
        while _coin(1, 1):
            turns += 1
        size = (offset + t * turns) // s
        negative = bool(secrets.randbelow(2))
        if negative and size == 0:
            continue
        return -size if negative else size


def _coin(numerator: int, denominator: int) -> bool:
    """Return True with probability exp(-numerator / denominator), for a quotient in [0, 1]."""
    draws = 1
    while secrets.randbelow(denominator * draws) < numerator:
        draws += 1
    return draws % 2 == 1
