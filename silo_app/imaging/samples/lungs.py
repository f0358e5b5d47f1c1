"""The lungs: what is left of them beside the organs, with vessels, texture and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from silo_app.cases import Finding
from silo_app.imaging.samples.findings import Abnormality
from silo_app.imaging.samples.noise import blur, texture
from silo_app.imaging.samples.rays import HEIGHTS, LOWEST, STEP, Field, Loft, Place, Rays, Span, covered
from silo_app.imaging.samples.thorax import LEFT, RIGHT, Thorax
from silo_app.imaging.samples.vessels import vessels

HILUM = 12.0  # mm, height at which the vessels enter
PLEURA = 1.1  # mm, the two layers of a collapsed lung's edge


@dataclass(frozen=True, slots=True)
class Lungs:
    """Chords through lung tissue and through bare air (pneumothorax), mm (H, W) each."""

    tissue: Field
    air: Field


def lungs(thorax: Thorax, rays: Rays, abnormal: Sequence[Abnormality], random: np.random.Generator) -> Lungs:
    """Return both lungs of one exposure."""
    grain = texture(random, rays.shape, slope=2.6, coarsest=40.0)
    tissue, air = np.zeros(rays.shape, np.float32), np.zeros(rays.shape, np.float32)
    for side in (RIGHT, LEFT):
        place = _reach(thorax, rays, side)
        one = _lung(thorax, rays.window(place), side, abnormal, grain[place])
        tissue[place] += one.tissue
        air[place] += one.air
    return Lungs(tissue, air)


def _reach(thorax: Thorax, rays: Rays, side: int) -> Place:
    """Return the part of the image in which one lung lies."""
    space = thorax.lung(side)
    middle = (side * 76.0 * thorax.anatomy.wide, (thorax.base + thorax.apex) / 2, 0.0)
    return rays.around(middle, (float(space.half_width.max()), 0.42 * (thorax.apex - thorax.base)))


def _lung(thorax: Thorax, rays: Rays, side: int, abnormal: Sequence[Abnormality], grain: Field) -> Lungs:
    """Return one lung: the space beside the organs, then its collapse, its vessels, and what fills it."""
    organs = [
        rays.loft(thorax.mediastinum()),
        *thorax.heart(rays, _heart_factor(abnormal)),
        thorax.belly(rays),
        thorax.dome(rays, side),
    ]
    here = [a for a in abnormal if a.side == side]
    space = thorax.lung(side)
    span, air = rays.loft(space), np.zeros(rays.shape, np.float32)
    tissue = span.length - covered(span, organs)
    for one in here:
        if one.finding is Finding.PNEUMOTHORAX:
            space = collapsed(space, one.size)
            span, free = rays.loft(space), tissue
            tissue = np.minimum(np.maximum(span.length - covered(span, organs), 0), free)
            edge = np.maximum(rays.loft(space, grow=PLEURA).length - span.length, 0)
            air = np.maximum(free - tissue - edge, 0)
    tissue = tissue * (1 + np.float32(0.025) * grain)
    tissue = np.maximum(tissue - np.minimum(vessels(thorax, rays, side), tissue * np.float32(0.6)), 0)
    for one in here:
        tissue, air = _fill(thorax, rays, one, space, span, tissue, air, grain)
    return Lungs(tissue, air)


def collapsed(space: Loft, share: float) -> Loft:
    """Return a lung that fell towards its hilum by `share` of its breadth, and less in height."""
    low = 1 - 0.45 * share
    at = np.where(HEIGHTS > HILUM, HILUM + (HEIGHTS - HILUM) / low, HEIGHTS)
    rows = np.clip(np.rint((at - LOWEST) / STEP), 0, len(HEIGHTS) - 1).astype(np.intp)
    x, z, width, depth = (t[rows] for t in (space.centre_x, space.centre_z, space.half_width, space.half_depth))
    kept = np.float32(1 - share)
    return Loft(x - np.sign(x) * width * (1 - kept), z, width * kept, depth * np.float32(1 - 0.35 * share))


def _heart_factor(abnormal: Sequence[Abnormality]) -> float:
    return max((a.size for a in abnormal if a.finding is Finding.CARDIOMEGALY), default=1.0)


def _fill(
    thorax: Thorax,
    rays: Rays,
    one: Abnormality,
    space: Loft,
    span: Span,
    tissue: Field,
    air: Field,
    grain: Field,
) -> tuple[Field, Field]:
    """Return tissue and air with one abnormality in the lung's place."""
    match one.finding:
        case Finding.EFFUSION:
            dry = 1 - effusion(thorax, rays, one)
            return tissue * dry, air * dry
        case Finding.NODULE | Finding.MASS:
            return np.maximum(tissue - lump(thorax, rays, one, space, span), 0), air
        case Finding.CONSOLIDATION:
            return np.maximum(tissue - consolidation(thorax, rays, one, space, span, grain), 0), air
        case _:
            return tissue, air


def effusion(thorax: Thorax, rays: Rays, one: Abnormality) -> Field:
    """Return the share of a lung's chord that is fluid: full below its level, which rises to the side (meniscus)."""
    level = thorax.base + one.size * (thorax.apex - thorax.base)
    aside = rays.point[0] * one.side  # mm from the midline
    wall = thorax.cage().half_width[rays.row]
    rise = 46 * np.exp(np.minimum(aside - wall, 0) / 24) + 9 * np.exp(-np.maximum(aside - 30, 0) / 12)
    above = rays.point[1] - np.float32(level) - rise.astype(np.float32)  # mm over the surface
    soft = 13.0 if rays.view.anterior else 6.0  # mm; a patient leaning back spreads the fluid
    return (0.86 * _step(-above / soft) + 0.14 * _step(-(above - 22) / 10)).astype(np.float32)


def lump(thorax: Thorax, rays: Rays, one: Abnormality, space: Loft, span: Span) -> Field:
    """Return the chord through a nodule (one round body) or a mass (several that run together), mm (H, W)."""
    random = np.random.default_rng(one.seed)
    centre, radius = place(thorax, one, space), one.size / 2
    total = rays.ellipsoid(centre, (radius, radius * 0.92, radius)).within(span).length
    for _ in range(3 if one.finding is Finding.MASS else 0):
        x, y, z = (c + o for c, o in zip(centre, random.normal(0, 0.42 * radius, 3), strict=True))
        size = radius * random.uniform(0.55, 0.8)
        total = np.maximum(total, rays.ellipsoid((x, y, z), (size, size, size)).within(span).length)
    return total * np.float32(one.solid)


def consolidation(thorax: Thorax, rays: Rays, one: Abnormality, space: Loft, span: Span, grain: Field) -> Field:
    """Return the chord of lung whose air is replaced by fluid: a patchy lobe with soft edges, mm (H, W)."""
    centre, radius = place(thorax, one, space), one.size / 2
    chord = rays.ellipsoid(centre, (radius * 0.9, radius * 1.05, radius * 1.1)).within(span).length
    patchy = np.clip(0.8 + 0.28 * grain, 0.25, 1.0)
    return blur(chord * patchy * np.float32(0.92 * one.solid), 5.0 / rays.view.spacing)


def place(thorax: Thorax, one: Abnormality, space: Loft) -> tuple[float, float, float]:
    """Return where an abnormality's middle lies, mm, well inside the lung."""
    low, high = thorax.dome_top(one.side), thorax.apex
    margin = 0.3 * one.size
    y = low + margin + one.height * max(high - 22 - low - 2 * margin, 1)
    row = int(np.clip(round((y - LOWEST) / STEP), 0, len(HEIGHTS) - 1))
    width = max(float(space.half_width[row]) - margin, 4.0)
    depth = max(float(space.half_depth[row]) - margin, 4.0)
    x = float(space.centre_x[row]) + one.side * width * one.reach * float(np.cos(one.angle))
    return x, y, float(space.centre_z[row]) + depth * one.reach * float(np.sin(one.angle))


def _step(value: Field) -> Field:
    return 1 / (1 + np.exp(-np.clip(value, -30, 30)))
