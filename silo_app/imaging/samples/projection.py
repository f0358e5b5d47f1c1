"""From a thorax to the X-rays that pass it: line integrals and Beer-Lambert's law."""

from collections.abc import Sequence

import numpy as np

from silo_app.imaging.samples.attenuation import Attenuation
from silo_app.imaging.samples.bones import bones
from silo_app.imaging.samples.findings import Abnormality
from silo_app.imaging.samples.lungs import lungs
from silo_app.imaging.samples.rays import HEIGHTS, Field, Loft, Rays
from silo_app.imaging.samples.thorax import LEFT, RIGHT, Thorax

GLANDULAR = 0.35  # the share of a breast that attenuates as soft tissue; the rest is fat


def line_integrals(
    thorax: Thorax,
    rays: Rays,
    abnormal: Sequence[Abnormality],
    beam: Attenuation,
    random: np.random.Generator,
) -> Field:
    """Return the attenuation along every ray, without unit, (H, W): minus the logarithm of what passes."""
    torso = thorax.torso()
    skin, flesh = rays.loft(torso).length, rays.loft(torso, grow=-thorax.anatomy.fat).length
    breast = breasts(thorax, rays)
    lung = lungs(thorax, rays, abnormal, random)
    bone = bones(thorax, rays) + lung.chalk
    air = lung.air + airways(thorax, rays)
    soft = np.maximum(flesh - lung.tissue - air - bone, 0) + np.float32(GLANDULAR) * breast
    fat = skin - flesh + np.float32(1 - GLANDULAR) * breast
    solid = soft * beam.soft + fat * beam.fat + bone * beam.bone
    return np.asarray(solid + lung.heavy * beam.lung, np.float32)


def breasts(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through the breasts, as far as they stand out of the torso, mm (H, W)."""
    size = thorax.anatomy.breast
    total = np.zeros(rays.shape, np.float32)
    if size <= 0:
        return total
    torso = rays.loft(thorax.torso())
    front = 100 * thorax.anatomy.deep + thorax.anatomy.muscle
    for side in (LEFT, RIGHT):
        centre = (side * 74 * thorax.anatomy.wide, (-46 - 0.3 * size) * thorax.anatomy.tall, front)
        breast = rays.ellipsoid(centre, (size * 1.05, size, size * 0.85))
        hang = np.clip((centre[1] + 0.9 * size - rays.point[1]) / (1.5 * size), 0, 1)  # no edge above
        outside = breast.length - breast.within(torso).length
        total += outside * outside * (hang / np.float32(1.4 * size))  # thins out towards its edge
    return total


def airways(thorax: Thorax, rays: Rays) -> Field:
    """Return the chord through windpipe, main bronchi and the stomach's bubble, mm (H, W)."""
    a = thorax.anatomy
    carina = 36 * a.tall
    open_ = np.clip((HEIGHTS - carina) / 8, 0, 1)
    zero = np.zeros_like(HEIGHTS)
    pipe = Loft(*(v.astype(np.float32) for v in (zero, zero - 14, 8.2 * open_, 8.6 * open_)))
    total = rays.loft(pipe).length
    for side, lean in ((LEFT, 0.95), (RIGHT, -0.6)):
        total = total + rays.ellipsoid((side * 14.0, carina - 10, -12.0), (5.5, 24.0, 5.5), lean).length
    if a.bubble > 6:
        top = thorax.dome_top(LEFT) - a.bubble * 0.7 - 7
        total = total + rays.ellipsoid((58 * a.wide, top, 20.0), (a.bubble * 1.5, a.bubble * 0.7, a.bubble)).length
    return total
