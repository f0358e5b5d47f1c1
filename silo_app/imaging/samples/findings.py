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
    Finding.CARDIOMEGALY: (1.24, 1.44),  # factor on the heart's breadth
    Finding.CONSOLIDATION: (75.0, 120.0),  # mm
    Finding.EFFUSION: (0.18, 0.34),  # share of the lung's height
    Finding.MASS: (48.0, 76.0),  # mm
    Finding.NODULE: (18.0, 28.0),  # mm
    Finding.PNEUMOTHORAX: (0.28, 0.58),  # share of the lung's breadth
}

CALCIUM = {Finding.NODULE: (0.1, 0.35), Finding.MASS: (0.05, 0.2)}
"""Old nodules calcify; a phantom's all do somewhat, which makes them easier to find than a hospital's."""


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
    calcium: float  # how much of it is chalk, as a share of cortical bone
    seed: int  # of its shape


def draw(finding: Finding, random: np.random.Generator) -> list[Abnormality]:
    """Return the abnormalities that make up one finding: one, or for nodules two to four."""
    count = int(random.integers(2, 5)) if finding is Finding.NODULE else 1
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
        height=float(random.uniform(0.2, 0.85)),
        angle=float(random.uniform(-1.2, 1.2)),
        reach=float(random.uniform(0.25, 0.8)),
        size=float(random.uniform(low, high)),
        solid=float(random.uniform(0.85, 1.0)),
        calcium=float(random.uniform(*CALCIUM.get(finding, (0.0, 0.0)))),
        seed=int(random.integers(2**31)),
    )
