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
    """Chords through the lungs, mm (H, W) each."""

    tissue: Field
    """Lung tissue, with the air in it."""
    heavy: Field
    """The same, weighted by its density, 1 for a lung at full breath."""
    air: Field
    """Bare air (pneumothorax)."""
    chalk: Field
    """Calcified tissue, as cortical bone."""


@dataclass(frozen=True, slots=True)
class Site:
    """One lung, ready to be filled: who has it, from where one looks, its space and chords, and its texture."""

    thorax: Thorax
    rays: Rays
    space: Loft
    span: Span
    grain: Field


def lungs(thorax: Thorax, rays: Rays, abnormal: Sequence[Abnormality], random: np.random.Generator) -> Lungs:
    """Return both lungs of one exposure."""
    grain = texture(random, rays.shape, slope=2.6, coarsest=40.0)
    both = Lungs(*(np.zeros(rays.shape, np.float32) for _ in range(4)))
    for side in (RIGHT, LEFT):
        place = _reach(thorax, rays, side)
        one = _lung(thorax, rays.window(place), side, abnormal, grain[place])
        both.tissue[place] += one.tissue
        both.heavy[place] += one.heavy
        both.air[place] += one.air
        both.chalk[place] += one.chalk
    return both


def _reach(thorax: Thorax, rays: Rays, side: int) -> Place:
    """Return the part of the image in which one lung lies."""
    space = thorax.lung(side)
    middle = (side * 76.0 * thorax.anatomy.wide, (thorax.base + thorax.apex) / 2, 0.0)
    return rays.around(middle, (float(space.half_width.max()), 0.5 * (thorax.apex - thorax.base)))


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
    density = thorax.breath.aerated * (0.8 + 0.45 * (1 - thorax.breath.depth))  # a lung that holds less air is denser
    for one in here:
        if one.finding is Finding.PNEUMOTHORAX:
            space, density = collapsed(space, one.size), density * (1 + 0.8 * one.size)
            span, free = rays.loft(space), tissue
            tissue = np.minimum(np.maximum(span.length - covered(span, organs), 0), free)
            edge = np.maximum(rays.loft(space, grow=PLEURA).length - span.length, 0)
            air = np.maximum(free - tissue - edge, 0)
    tissue = tissue * (1 + np.float32(0.02) * grain)
    tissue = np.maximum(tissue - np.minimum(vessels(thorax, rays, side), tissue * np.float32(0.6)), 0)
    return _filled(Site(thorax, rays, space, span, grain), here, tissue, air, density)


def _filled(site: Site, abnormal: Sequence[Abnormality], tissue: Field, air: Field, density: float) -> Lungs:
    """Return a lung whose tissue and air have made room for its abnormalities."""
    chalk = np.zeros_like(air)
    for one in abnormal:
        match one.finding:
            case Finding.EFFUSION:
                dry = 1 - effusion(site, one)
                tissue, air = tissue * dry, air * dry
            case Finding.NODULE | Finding.MASS:
                body = np.minimum(lump(site, one), tissue)
                tissue = tissue - body
                chalk += body * np.float32(one.calcium)
            case Finding.CONSOLIDATION:
                tissue = np.maximum(tissue - consolidation(site, one), 0)
    return Lungs(tissue, tissue * np.float32(density), air, chalk)


def _heart_factor(abnormal: Sequence[Abnormality]) -> float:
    return max((a.size for a in abnormal if a.finding is Finding.CARDIOMEGALY), default=1.0)


def collapsed(space: Loft, share: float) -> Loft:
    """Return a lung that fell towards its hilum by `share` of its breadth, and less in height."""
    low = 1 - 0.45 * share
    at = np.where(HEIGHTS > HILUM, HILUM + (HEIGHTS - HILUM) / low, HEIGHTS)
    rows = np.clip(np.rint((at - LOWEST) / STEP), 0, len(HEIGHTS) - 1).astype(np.intp)
    x, z, width, depth = (t[rows] for t in (space.centre_x, space.centre_z, space.half_width, space.half_depth))
    kept = np.float32(1 - share)
    return Loft(x - np.sign(x) * width * (1 - kept), z, width * kept, depth * np.float32(1 - 0.35 * share))


def effusion(site: Site, one: Abnormality) -> Field:
    """Return the share of a lung's chord that is fluid: full below its level, which rises to the side (meniscus)."""
    thorax, rays = site.thorax, site.rays
    level = thorax.base + one.size * (thorax.apex - thorax.base)
    aside = rays.point[0] * one.side  # mm from the midline
    wall = thorax.cage().half_width[rays.row]
    rise = 46 * np.exp(np.minimum(aside - wall, 0) / 24) + 9 * np.exp(-np.maximum(aside - 30, 0) / 12)
    above = rays.point[1] - np.float32(level) - rise.astype(np.float32)  # mm over the surface
    soft = 13.0 if rays.view.anterior else 6.0  # mm; a patient leaning back spreads the fluid
    return (0.86 * _step(-above / soft) + 0.14 * _step(-(above - 22) / 10)).astype(np.float32)


def lump(site: Site, one: Abnormality) -> Field:
    """Return the chord through a nodule (one round body) or a mass (several that run together), mm (H, W)."""
    random = np.random.default_rng(one.seed)
    centre, radius = place(site.thorax, one, site.space), one.size / 2
    total = site.rays.ellipsoid(centre, (radius, radius * 0.92, radius)).within(site.span).length
    for _ in range(3 if one.finding is Finding.MASS else 0):
        x, y, z = (c + o for c, o in zip(centre, random.normal(0, 0.42 * radius, 3), strict=True))
        size = radius * random.uniform(0.55, 0.8)
        total = np.maximum(total, site.rays.ellipsoid((x, y, z), (size, size, size)).within(site.span).length)
    return total * np.float32(one.solid)


def consolidation(site: Site, one: Abnormality) -> Field:
    """Return the chord of lung whose air is replaced by fluid: a patchy lobe with soft edges, mm (H, W)."""
    centre, radius = place(site.thorax, one, site.space), one.size / 2
    chord = site.rays.ellipsoid(centre, (radius * 0.9, radius * 1.05, radius * 1.1)).within(site.span).length
    patchy = np.clip(0.8 + 0.28 * site.grain, 0.25, 1.0)
    return blur(chord * patchy * np.float32(0.92 * one.solid), 5.0 / site.rays.view.spacing)


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
