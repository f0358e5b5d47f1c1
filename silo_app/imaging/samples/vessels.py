"""The vessels of the lungs: trees that branch from the hila, drawn as soft tubes."""

import numpy as np
from numpy.typing import NDArray

from silo_app.imaging.samples.rays import LOWEST, STEP, Field, Loft, Rays
from silo_app.imaging.samples.thorax import Thorax

STEMS = 13  # first branches a side
TWIGS = 3  # branches of each
SAMPLES = 26  # points along a branch
REACH = 4  # px, half of the patch that one point of a tube is drawn into


def vessels(thorax: Thorax, rays: Rays, side: int) -> Field:
    """Return the chord through the vessels of one lung, mm of blood (H, W)."""
    points, radii = _tree(thorax, side)  # (B, S, 3), (B, S)
    where = rays.project(points)  # (B, S, 2)
    pixel = rays.view.spacing / rays.view.magnification  # mm in the patient
    step = np.sqrt((np.diff(where, axis=1) ** 2).sum(axis=-1)).mean(axis=1, keepdims=True)  # px between points, (B, 1)
    sigma = np.clip(0.75 * radii / pixel, 0.5, REACH / 1.8)  # px
    weight = 1.35 * radii * step / (np.sqrt(2 * np.pi) * sigma)  # a line of Gaussians has the tube's chord
    return _splat(where.reshape(-1, 2), sigma.ravel(), weight.ravel(), rays.shape)


def _tree(thorax: Thorax, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points (B, S, 3) and radii (B, S) in mm of the branches of one lung."""
    random = np.random.default_rng((thorax.anatomy.vessels, side + 1))
    space = thorax.lung(side)
    hilum = np.array([side * 30.0 * thorax.anatomy.wide, 12.0 * thorax.anatomy.tall, -4.0])
    ends = np.stack([_inside(space, side, h, random) for h in np.linspace(0.03, 0.93, STEMS)])  # (13, 3)
    stems = _curves(np.broadcast_to(hilum, ends.shape), ends, random)
    forks = random.integers(SAMPLES // 4, 3 * SAMPLES // 4, (STEMS, TWIGS))
    starts = np.take_along_axis(stems, forks[..., None], axis=1).reshape(-1, 3)  # (39, 3)
    aims = np.repeat(ends, TWIGS, axis=0) + random.normal(0, 24, (STEMS * TWIGS, 3))
    twigs = _curves(starts, starts + 0.8 * (aims - starts), random)
    taper = np.linspace(1, 0.2, SAMPLES) ** 1.4
    radii = np.concatenate([np.full(STEMS, 5.0), np.full(STEMS * TWIGS, 2.1)])[:, None] * taper
    return np.concatenate([stems, twigs]), radii


def _inside(space: Loft, side: int, height: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Return a point near the pleura at a share `height` of the lung."""
    rows = np.flatnonzero(space.half_width > 5)
    row = int(rows[0] + height * (len(rows) - 1))
    angle = random.uniform(-1.2, 1.2)
    x = space.centre_x[row] + side * 0.8 * space.half_width[row] * np.cos(angle)
    return np.array([x, LOWEST + STEP * row, space.centre_z[row] + 0.8 * space.half_depth[row] * np.sin(angle)])


def _curves(starts: NDArray[np.float64], ends: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return slightly bent lines (B, S, 3) between points (B, 3)."""
    part = np.linspace(0, 1, SAMPLES)[None, :, None]
    bend = random.normal(0, 0.07, (len(starts), 1, 3)) * np.linalg.norm(ends - starts, axis=1)[:, None, None]
    return np.asarray(starts[:, None] * (1 - part) + ends[:, None] * part + bend * 4 * part * (1 - part))


def _splat(
    where: NDArray[np.float64], sigma: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, int]
) -> Field:
    """Return the sum (H, W) of Gaussians of `sigma` px and peak `weight` at points `where` (N, 2)."""
    corner = np.rint(where).astype(np.intp)  # (N, 2)
    offset = np.arange(-REACH, REACH + 1)
    spread = -0.5 / sigma[:, None] ** 2
    rows, columns = (corner[:, axis, None] + offset for axis in (0, 1))  # (N, 7)
    down = np.exp(spread * (rows - where[:, 0, None]) ** 2) * weight[:, None]
    right = np.exp(spread * (columns - where[:, 1, None]) ** 2)
    down[(rows < 0) | (rows >= shape[0])] = 0
    right[(columns < 0) | (columns >= shape[1])] = 0
    index = np.clip(rows, 0, shape[0] - 1)[:, :, None] * shape[1] + np.clip(columns, 0, shape[1] - 1)[:, None, :]
    drawn = np.bincount(index.ravel(), (down[:, :, None] * right[:, None, :]).ravel(), minlength=shape[0] * shape[1])
    return drawn.reshape(shape).astype(np.float32)
