"""The bones of the thorax: ribs, spine, clavicles, breastbone, shoulder blades; chords in mm of cortical bone.

The rib cage is a curved shell between two lofts, and the ribs are bands of it: a band's height falls from the spine
to the breastbone, so that one expression gives all ribs, front and back, with the brightening of their outer curve.
"""

import numpy as np

from silo_app.imaging.samples.rays import HEIGHTS, Field, Loft, Rays, Span
from silo_app.imaging.samples.thorax import LEFT, RIGHT, Thorax

SHELL = 8.0  # mm, thickness of a rib
COUNT = 11  # pairs of ribs that meet a chest radiograph
TRABECULAR = 0.4  # the share of cortical bone in a rib's cross-section
VERTEBRAL = 0.3  # the same of a vertebra
FLAT = 0.4  # the same of blade and breastbone


def bones(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through bone, in mm of cortical bone (H, W)."""
    mineral = np.float32(thorax.anatomy.mineral)
    parts = ribs(thorax, rays) * np.float32(TRABECULAR) + spine(thorax, rays) * np.float32(VERTEBRAL)
    parts += flat_bones(thorax, rays) * np.float32(FLAT)
    for side in (LEFT, RIGHT):
        clavicle(thorax, rays, side, parts)
    return parts * mineral


def ribs(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through all ribs, mm (H, W)."""
    cage = thorax.cage()
    outer, inner = rays.loft(cage, grow=SHELL), rays.loft(cage)
    missed = inner.length <= 0
    turn = np.where(missed, (outer.near + outer.far) / 2, inner.near)
    first = Span(outer.near, turn)
    second = Span(np.where(missed, turn, inner.far), outer.far)
    return _bands(thorax, rays, cage, first) + _bands(thorax, rays, cage, second)


def _bands(thorax: Thorax, rays: Rays, cage: Loft, shell: Span) -> Field:
    """Return how much of a shell's chord is rib, mm (H, W)."""
    a = thorax.anatomy
    along = (shell.near + shell.far) / 2
    across = (rays.point[0] + along * rays.course[0] - cage.centre_x[rays.row]) / cage.half_width[rays.row]
    depth = (rays.point[2] + along * rays.course[2] - cage.centre_z[rays.row]) / cage.half_depth[rays.row]
    forward = (1 + depth / np.sqrt(across * across + depth * depth + np.float32(1e-6))) / 2  # 0 at the spine, 1 in front
    height = rays.height(along) + np.float32(a.rib_drop) * forward**1.25 * (2 - forward) / np.float32(1.0)
    top = (112 + a.rib_offset) * a.tall - 6 * (1 - thorax.breath.depth)
    phase = (np.float32(top) - height) / np.float32(a.rib_spacing * a.tall)
    number = np.rint(phase)
    off = (phase - number) * np.float32(a.rib_spacing * a.tall / a.rib_height)
    band = np.sqrt(np.maximum(1 - off * off, np.float32(0)))
    band *= (number >= 0) & (number < COUNT)
    cartilage = np.clip((forward - np.float32(0.86)) * 12, 0, 1)
    return shell.length * band * (1 - cartilage * np.float32(1 - a.calcified))


def spine(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through vertebrae and, weaker, the discs between them, mm (H, W)."""
    a = thorax.anatomy
    pitch = 23 * a.tall
    phase = (HEIGHTS + a.rib_offset) / pitch % 1.0
    disc = 1 - 0.55 * np.exp(-(((phase - 0.5) * pitch / 3.2) ** 2))
    waist = 1 - 0.06 * np.cos(2 * np.pi * (phase - 0.5))
    half = np.interp(HEIGHTS, [-230, -60, 100, 200], [23, 18, 15, 13]) * a.wide * waist
    z = np.full_like(HEIGHTS, -62 * a.deep)
    column = Loft(*(v.astype(np.float32) for v in (np.zeros_like(z), z, half, half * 0.95)))
    process = Loft(*(v.astype(np.float32) for v in (np.zeros_like(z), z - 30, half * 0.22, half * 1.0)))
    return rays.loft(column).length * disc.astype(np.float32)[rays.row] + rays.loft(process).length


def flat_bones(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through breastbone, shoulder blades and heads of the upper arms, mm (H, W)."""
    a, up = thorax.anatomy, thorax.breath.shoulders
    total = rays.ellipsoid((0, 20 * a.tall, 96 * a.deep), (17, 92 * a.tall, 6)).length
    aside = (14 if rays.view.anterior else 34) + 0.4 * up  # shoulders rolled forward clear the lungs
    for side in (LEFT, RIGHT):
        centre = (side * (112 + aside) * a.wide, 62 * a.tall + up / 2, -88 * a.deep)
        total = total + rays.ellipsoid(centre, (34.0, 72.0, 5.0), lean=-side * 0.16).length
        head = (side * (172 + aside / 3) * a.wide, 98 * a.tall + up, -14.0)
        total = total + rays.ellipsoid(head, (25.0, 27.0, 25.0)).length * np.float32(0.45)
    return total


def clavicle(thorax: Thorax, rays: Rays, side: int, total: Field) -> None:
    """Add the chord through one clavicle, in mm of cortical bone, to `total` (H, W)."""
    a = thorax.anatomy
    part = np.linspace(0, 1, 40)  # from breastbone to shoulder
    x = side * (14 + 152 * part) * a.wide
    y = 92 * a.tall + (a.clavicle + thorax.breath.shoulders) * part + 7 * np.sin(2 * np.pi * part)
    z = 78 * a.deep - 70 * part**1.5
    line = rays.project(np.stack([x, y, z], axis=-1))  # (40, 2) row, column
    order = np.argsort(line[:, 1])
    columns = np.arange(rays.view.columns)
    middle = np.interp(columns, line[order, 1], line[order, 0], left=-1e3, right=-1e3)  # (W,) rows
    radius = 6.5 * rays.view.magnification / rays.view.spacing
    low, high = int(max(middle[middle > -99].min(initial=0) - radius, 0)), int(middle.max() + radius) + 2
    band = slice(low, max(high, low))
    off = (np.arange(rays.view.rows)[band, None] - middle[None, :]) / radius
    total[band] += (13.0 * 0.6 * np.sqrt(np.maximum(1 - off * off, 0))).astype(np.float32)
