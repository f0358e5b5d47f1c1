"""Findings with known truth: what they are, where they lie in a lung, and how they change until the next study."""

from dataclasses import dataclass, replace

import numpy as np

from silo_app.cases import Finding
from silo_app.imaging.samples.thorax import LEFT, RIGHT

SCOPE = (
    Finding.CARDIOMEGALY,
    Finding.CONSOLIDATION,
    Finding.EFFUSION,
    Finding.MASS,
    Finding.NODULE,
    Finding.PNEUMOTHORAX,
)
"""What a phantom can have; every phantom was "looked at" for all of these."""

SIZES = {
    Finding.CARDIOMEGALY: (1.34, 1.62),  # factor on the heart's breadth
    Finding.CONSOLIDATION: (62.0, 105.0),  # mm
    Finding.EFFUSION: (0.30, 0.56),  # share of the lung's height
    Finding.MASS: (36.0, 62.0),  # mm
    Finding.NODULE: (17.0, 27.0),  # mm
    Finding.PNEUMOTHORAX: (0.30, 0.62),  # share of the lung's breadth
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Abnormality:
    """One finding in one place; heights and reaches are shares, so that it moves with the breathing lung."""

    finding: Finding
    side: int
    height: float  # from the dome (0) to the apex (1)
    angle: float  # radians in the lung's section, 0 lateral, positive forward
    reach: float  # from the middle of the section (0) to the pleura (1)
    size: float  # see SIZES
    solid: float  # how much of the lung it replaces, 0..1
    seed: int  # of its shape


def draw(finding: Finding, random: np.random.Generator) -> list[Abnormality]:
    """Return the abnormalities that make up one finding: one, or for nodules up to three."""
    count = int(random.choice([1, 2, 3], p=[0.4, 0.35, 0.25])) if finding is Finding.NODULE else 1
    return [_draw_one(finding, random) for _ in range(count)]


def changed(abnormality: Abnormality, random: np.random.Generator) -> Abnormality:
    """Return the same abnormality some weeks later: larger or smaller, in the same place."""
    low, high = SIZES[abnormality.finding]
    size = float(np.clip(abnormality.size + random.normal(0, 0.25) * (high - low), low, high))
    return replace(abnormality, size=size)


def _draw_one(finding: Finding, random: np.random.Generator) -> Abnormality:
    low, high = SIZES[finding]
    return Abnormality(
        finding=finding,
        side=int(random.choice([LEFT, RIGHT])),
        height=float(random.uniform(0.12, 0.85)),
        angle=float(random.uniform(-1.5, 1.5)),
        reach=float(random.uniform(0.15, 0.7)),
        size=float(random.uniform(low, high)),
        solid=float(random.uniform(0.75, 1.0)),
        seed=int(random.integers(2**31)),
    )
