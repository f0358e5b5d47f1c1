"""The rays of one exposure, and how far each runs through a solid.

Patient coordinates in mm: x to the patient's left, y up, z forward; the origin lies in the middle of the chest. Solids
are ellipsoids (exact) and lofts (stacked elliptic sections whose shape changes with height; a ray, which is nearly
level, takes the section at the height where it crosses the middle of the body).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""One number a pixel, float32 (H, W) where it is kept."""

Place = tuple[slice, slice]
"""A part of an image: rows and columns."""

LOWEST, HIGHEST, STEP = -320.0, 320.0, 0.5  # mm
HEIGHTS = np.arange(LOWEST, HIGHEST, STEP)  # (T,) heights at which lofts are tabulated


class Span(NamedTuple):
    """Where rays run inside a convex solid: from `near` to `far`, mm along the ray from the middle plane, (H, W)."""

    near: Field
    far: Field

    @property
    def length(self) -> Field:
        """The chord, mm (H, W)."""
        return np.maximum(self.far - self.near, 0)

    def within(self, other: "Span") -> "Span":
        """Return the part of the chord that lies in `other` as well."""
        return Span(np.maximum(self.near, other.near), np.minimum(self.far, other.far))


@dataclass(frozen=True, slots=True)
class Loft:
    """A vertical solid of elliptic sections: centre (x, z) and semi-axes along x and z at every height, (T,) each."""

    centre_x: Field
    centre_z: Field
    half_width: Field
    half_depth: Field


@dataclass(frozen=True, slots=True)
class Rays:
    """One ray a pixel: its point nearest the body's middle, its direction, and the detector they were made for."""

    point: tuple[Field, Field, Field]  # x, y, z of the point in the middle plane, mm, (H, W) each
    course: tuple[Field, Field, Field]  # unit direction from source to detector, (H, W) each
    row: NDArray[np.intp]  # (H, W) index of the point's height in HEIGHTS
    view: "Geometry"
    corner: tuple[int, int] = (0, 0)  # row and column of the first ray on the detector

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.row.shape[0], self.row.shape[1]

    def window(self, place: Place) -> "Rays":
        """Return the rays of a part of the image."""
        x, y, z = (p[place] for p in self.point)
        u, v, w = (c[place] for c in self.course)
        corner = (self.corner[0] + place[0].start, self.corner[1] + place[1].start)
        return Rays((x, y, z), (u, v, w), self.row[place], self.view, corner)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (..., 3) in the patient fall among these rays: (..., 2) row and column, in pixels."""
        return np.asarray(self.view.project(points) - np.array(self.corner))

    def around(self, centre: tuple[float, float, float], reach: tuple[float, float]) -> Place:
        """Return the part of the image that holds everything within `reach` mm (across, up) of `centre`."""
        row, column = self.project(np.array(centre))
        scale = 1.3 * self.view.magnification / self.view.spacing  # generous: for depth and lean
        rows, columns = self.shape
        top, left = (int(max(at - scale * size, 0)) for at, size in ((row, reach[1]), (column, reach[0])))
        bottom, right = (int(max(at + scale * size + 2, 0)) for at, size in ((row, reach[1]), (column, reach[0])))
        return slice(min(top, rows), min(bottom, rows)), slice(min(left, columns), min(right, columns))

    def height(self, along: Field) -> Field:
        """Return the height y (mm) of the rays `along` mm beyond the middle plane."""
        return self.point[1] + along * self.course[1]

    def ellipsoid(self, centre: tuple[float, float, float], radii: tuple[float, float, float], lean: float = 0) -> Span:
        """Return the chords of an ellipsoid, turned by `lean` radians about the z axis (counter-clockwise as seen)."""
        longest = max(radii) if lean else 0.0
        place = self.around(centre, (max(radii[0], longest), max(radii[1], longest)))
        px, py, pz = (p[place] - np.float32(c) for p, c in zip(self.point, centre, strict=True))
        ux, uy, uz = (c[place] for c in self.course)
        if lean:
            cos, sin = np.float32(np.cos(lean)), np.float32(np.sin(lean))
            px, py = px * cos + py * sin, py * cos - px * sin
            ux, uy = ux * cos + uy * sin, uy * cos - ux * sin
        rx, ry, rz = (np.float32(1 / radius) for radius in radii)
        part = _roots((px * rx, py * ry, pz * rz), (ux * rx, uy * ry, uz * rz))
        whole = Span(np.zeros(self.shape, np.float32), np.zeros(self.shape, np.float32))
        whole.near[place], whole.far[place] = part
        return whole

    def loft(self, solid: Loft, grow: float = 0) -> Span:
        """Return the chords of a loft, its semi-axes grown by `grow` mm."""
        wide = 1 / np.maximum(solid.half_width[self.row] + np.float32(grow), np.float32(1e-3))
        deep = 1 / np.maximum(solid.half_depth[self.row] + np.float32(grow), np.float32(1e-3))
        across = (self.point[0] - solid.centre_x[self.row]) * wide
        depth = (self.point[2] - solid.centre_z[self.row]) * deep
        return _roots((across, depth), (self.course[0] * wide, self.course[2] * deep))


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """Source, detector and the patient's pose between them."""

    rows: int
    columns: int
    spacing: float  # mm on the detector
    source_to_detector: float  # mm
    patient_to_detector: float  # mm from the detector to the middle of the body
    anterior: bool  # the beam enters the front (AP)
    yaw: float  # radians, the patient turned about the vertical
    roll: float  # radians, the patient leaning in the image plane
    shift: tuple[float, float]  # mm by which the patient stands off the detector's middle, right and up

    def rays(self) -> Rays:
        """Return the rays from the source to the middle of every pixel."""
        forward = -1.0 if self.anterior else 1.0
        right = (np.arange(self.columns) - (self.columns - 1) / 2) * self.spacing - self.shift[0]
        up = ((self.rows - 1) / 2 - np.arange(self.rows)) * self.spacing - self.shift[1]
        x, y = np.broadcast_arrays(right[None, :], up[:, None])
        source = np.array([-self.shift[0], -self.shift[1], 0])
        course = np.stack([x - source[0], y - source[1], np.full_like(x, forward * self.source_to_detector)])
        part = 1 - self.patient_to_detector / self.source_to_detector
        point = np.stack([source[0] + part * course[0], source[1] + part * course[1], np.zeros_like(x)])
        course /= np.sqrt((course * course).sum(axis=0))
        turn = self._turn()
        px, py, pz = np.einsum("ij,jhw->ihw", turn, point).astype(np.float32)
        ux, uy, uz = np.einsum("ij,jhw->ihw", turn, course).astype(np.float32)
        row = np.clip(np.rint((py - LOWEST) / STEP), 0, len(HEIGHTS) - 1).astype(np.intp)
        return Rays((px, py, pz), (ux, uy, uz), row, self)

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points (..., 3) in the patient fall on the image: (..., 2) row and column, in pixels."""
        turned = points @ self._turn()  # the transpose undoes the turn
        forward = -1.0 if self.anterior else 1.0
        reach = self.source_to_detector - self.patient_to_detector + forward * turned[..., 2]  # mm from the source
        scale = self.source_to_detector / reach
        x = (turned[..., 0] + self.shift[0]) * scale / self.spacing + (self.columns - 1) / 2
        y = (self.rows - 1) / 2 - (turned[..., 1] + self.shift[1]) * scale / self.spacing
        return np.stack([y, x], axis=-1)

    @property
    def magnification(self) -> float:
        """How much larger the middle of the body is on the detector."""
        return self.source_to_detector / (self.source_to_detector - self.patient_to_detector)

    def _turn(self) -> NDArray[np.float64]:
        """Return the rotation (3, 3) from the room to the patient."""
        cy, sy, cr, sr = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.roll), np.sin(self.roll)
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return np.asarray(yaw @ roll)


def covered(inside: Span, spans: list[Span]) -> Field:
    """Return how much of `inside` the union of `spans` covers, mm (H, W).

    Chords that meet are joined; one that lies apart is added. That is exact for two, and for more unless a later one
    meets one that was added apart, which organs of a chest hardly do.
    """
    whole, *rest = [span.within(inside) for span in spans]
    whole = Span(whole.near, np.maximum(whole.far, whole.near))
    apart = np.zeros_like(whole.near)
    for span in rest:
        new = Span(span.near, np.maximum(span.far, span.near))
        meets = (new.near <= whole.far) & (whole.near <= new.far)
        larger = new.length > whole.length
        apart = apart + np.where(meets, np.float32(0), np.minimum(new.length, whole.length))
        near = np.where(meets, np.minimum(new.near, whole.near), np.where(larger, new.near, whole.near))
        far = np.where(meets, np.maximum(new.far, whole.far), np.where(larger, new.far, whole.far))
        whole = Span(near, far)
    return np.asarray(np.minimum(whole.length + apart, inside.length))


def _roots(point: tuple[Field, ...], course: tuple[Field, ...]) -> Span:
    """Return where point + s * course meets the unit sphere (or circle); a miss is an empty chord."""
    a, b, c = course[0] * course[0], point[0] * course[0], point[0] * point[0] - np.float32(1)
    for p, u in zip(point[1:], course[1:], strict=True):
        a += u * u
        b += p * u
        c += p * p
    root = np.sqrt(np.maximum(b * b - a * c, np.float32(0))) / a
    middle = -b / a
    return Span(middle - root, middle + root)
