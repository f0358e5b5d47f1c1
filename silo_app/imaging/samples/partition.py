"""Divides patients among hospitals with a chosen label skew; a patient is never divided."""

from collections.abc import Mapping, Sequence

import numpy as np

from silo_app.errors import SampleInvalid

Patient = tuple[int, str]
"""The set that a patient is in, and the patient's name there."""

SMALLEST_SHARE = 0.2
"""Every hospital gets at least this part of an equal share of the patients."""
SMALLEST_KIND = 4
"""And so many patients of every kind that is common enough (10 for each of these)."""


def dirichlet(kinds: Mapping[Patient, str], hospitals: int, alpha: float, seed: int) -> dict[Patient, int]:
    """Return each patient's hospital, 0 to `hospitals` - 1; `kinds` says what kind of patient each is.

    For every kind, the hospitals' shares are drawn from a symmetric Dirichlet distribution (Hsu, Qi and Brown 2019):
    a small `alpha` gives each kind to few hospitals, a large one to all alike. Then patients are moved, as few as
    need be, until no hospital is too small to be of use.
    """
    if len(kinds) < hospitals:
        raise SampleInvalid(
            f"{len(kinds)} patients cannot be divided among {hospitals} hospitals",
            remedy="Ask for fewer hospitals, or give more images.",
        )
    random = np.random.default_rng(seed)
    groups: dict[str, list[Patient]] = {}
    for patient in sorted(kinds):
        groups.setdefault(kinds[patient], []).append(patient)
    placed: list[list[Patient]] = [[] for _ in range(hospitals)]
    for kind in sorted(groups):
        parts = _share(groups[kind], hospitals, alpha, random)
        _level(parts, SMALLEST_KIND if len(groups[kind]) >= 10 * SMALLEST_KIND * hospitals else 0, random)
        for hospital, part in enumerate(parts):
            placed[hospital].extend(part)
    _level(placed, max(1, int(SMALLEST_SHARE * len(kinds) / hospitals)), random)
    return {patient: hospital for hospital, part in enumerate(placed) for patient in part}


def _share(patients: Sequence[Patient], hospitals: int, alpha: float, random: np.random.Generator) -> list[list[Patient]]:
    """Return `patients` in `hospitals` parts whose sizes follow a draw from the Dirichlet distribution."""
    shares = random.dirichlet(np.full(hospitals, alpha))
    order = [patients[i] for i in random.permutation(len(patients))]
    ends = np.rint(np.cumsum(shares) * len(order)).astype(int)
    ends[-1] = len(order)
    return [list(order[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _level(parts: list[list[Patient]], least: int, random: np.random.Generator) -> None:
    """Move patients from the largest part to any with fewer than `least`."""
    for part in parts:
        while len(part) < least:
            largest = max(parts, key=len)
            part.append(largest.pop(int(random.integers(len(largest)))))
