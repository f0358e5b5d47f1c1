"""The parametric thorax: one patient's anatomy, drawn once, and its solids at one depth of breath.

Sizes are those of an adult chest as anatomy books and radiographs give them (thoracic width about 280 mm, heart about
45 % of it, dome of the diaphragm at the tenth posterior rib in full inspiration); they are schematic, not a model of
anybody.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Sex
from silo_app.imaging.samples.rays import HEIGHTS, Loft, Rays, Span

LEFT, RIGHT = 1, -1
"""The patient's sides, as signs of x."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What stays the same in all studies of one patient; factors are relative to a tall man."""

    sex: Sex
    tall: float
    wide: float
    deep: float
    fat: float  # mm under the skin
    muscle: float  # mm around the ribs
    breast: float  # mm radius, 0 for none
    heart: float
    heart_lean: float  # radians
    aorta: float
    dome: tuple[float, float]  # mm of rise of the right and the left dome
    rib_spacing: float  # mm
    rib_offset: float  # mm
    rib_height: float  # mm, half
    rib_drop: float  # mm from spine to breastbone
    mineral: float  # bone density
    calcified: float  # how much of the rib cartilage shows, 0..1
    clavicle: float  # mm of rise to the shoulder
    bubble: float  # mm radius of the stomach's gas
    vessels: int  # seed of the vessel trees


def draw_anatomy(sex: Sex, age: int, random: np.random.Generator) -> Anatomy:
    """Return a patient of `sex` and `age`."""
    female = sex is Sex.FEMALE
    old = np.clip((age - 30) / 60, 0, 1)
    habitus = random.normal()
    return Anatomy(
        sex=sex,
        tall=float(random.normal(0.93 if female else 1.0, 0.05)),
        wide=float(random.normal(0.91 if female else 1.0, 0.045) + 0.02 * habitus),
        deep=float(random.normal(0.95, 0.06) + 0.1 * old + 0.03 * habitus),
        fat=float(np.clip(14 * np.exp(0.55 * habitus), 3, 45)),
        muscle=float(random.uniform(10, 16) if female else random.uniform(13, 22)),
        breast=float(random.uniform(36, 62) + 6 * habitus) if female else 0.0,
        heart=float(random.normal(1.0, 0.075)),
        heart_lean=float(random.normal(-0.62, 0.12)),
        aorta=float(random.normal(0.95, 0.08) + 0.3 * old),
        dome=(float(np.clip(random.normal(46, 11), 20, 80)), float(np.clip(random.normal(36, 11), 14, 72))),
        rib_spacing=float(random.normal(23.5, 1.2)),
        rib_offset=float(random.uniform(-8, 8)),
        rib_height=float(random.normal(5.8, 0.6)),
        rib_drop=float(random.normal(92, 12)),
        mineral=float(np.clip(random.normal(1.05 - 0.3 * old, 0.1), 0.55, 1.3)),
        calcified=float(np.clip(random.normal(0.5 * old, 0.15), 0, 0.8)),
        clavicle=float(random.normal(18, 7)),
        bubble=float(max(random.normal(14, 10), 0)),
        vessels=int(random.integers(2**31)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Breath:
    """How the patient stood for one exposure: depth of breath (1 full) and shoulders (mm raised)."""

    depth: float
    aerated: float  # density of the lungs; emphysema and oedema go beyond what breath does
    shoulders: float


@dataclass(frozen=True, slots=True)
class Thorax:
    """One patient's solids at one breath. Every method is pure; `rays` say from where one looks."""

    anatomy: Anatomy
    breath: Breath

    @property
    def base(self) -> float:
        """The lowest point of the lungs, mm."""
        return (-128 + 16 * (1 - self.breath.depth)) * self.anatomy.tall

    @property
    def apex(self) -> float:
        """The highest point of the lungs, mm."""
        return 128 * self.anatomy.tall

    def dome_top(self, side: int) -> float:
        """Return the height of a side's dome, mm."""
        rise = self.anatomy.dome[0 if side == RIGHT else 1]
        return self.base + rise + 38 * (1 - self.breath.depth)

    def cage(self) -> Loft:
        """Return the inside of the rib cage."""
        a = self.anatomy
        return _loft(
            a.tall,
            half_width=_CAGE_WIDTH,
            half_depth=[(-230, 84), (-100, 88), (0, 84), (60, 70), (100, 54), (130, 40)],
            centre_z=[(-230, 0), (0, 0), (60, -6), (130, -26)],
            wide=a.wide,
            deep=a.deep,
        )

    def torso(self) -> Loft:
        """Return the skin: around the cage, muscle and fat, and above them shoulders and neck."""
        a = self.anatomy
        around = (a.muscle + a.fat + 8) / a.wide
        front = (0.6 * a.muscle + a.fat + 8) / a.deep
        return _loft(
            a.tall,
            half_width=[
                (-260, 128 + around),
                (-120, 142 + around),
                (0, 148 + around),
                (60, 172 + around),
                (95, 196 + a.fat),
                (125, 150),
                (150, 72),
                (210, 62),
            ],
            half_depth=[(-230, 86 + front), (0, 86 + front), (80, 78 + front), (130, 68), (200, 60)],
            centre_z=[(-230, 0), (0, 0), (130, -16), (200, -16)],
            wide=a.wide,
            deep=a.deep,
            reach=40,
        )

    def lung(self, side: int) -> Loft:
        """Return the space of one lung, from its apex down into the recess behind the dome."""
        a = self.anatomy
        low, high = self.base, self.apex
        at = low + np.array([0, 0.06, 0.18, 0.36, 0.55, 0.70, 0.82, 0.92, 0.97, 1.0]) * (high - low)  # (10,)
        outer = _through(_CAGE_WIDTH, at / a.tall) * a.wide - 2  # mm from the midline
        inner = np.array([70, 40, 22, 16, 14, 13, 14, 18, 24, 34]) * a.wide
        half = np.maximum((outer - inner) / 2, 1) * np.array([0.08, 0.72, 0.98, 1, 1, 1, 1, 0.93, 0.72, 0.1])
        depth = np.array([6, 50, 78, 83, 80, 71, 61, 47, 34, 4]) * a.deep
        back = np.array([-34, -16, -4, 0, -1, -6, -11, -17, -20, -22])
        fade = (low - 6 < HEIGHTS) & (high + 4 > HEIGHTS)
        tables = (_smooth(np.interp(HEIGHTS, at, v), 8) for v in (side * (outer + inner) / 2, back, half, depth))
        x, z, w, d = tables
        return Loft(x, z, (w * fade).astype(np.float32), (d * fade).astype(np.float32))

    def mediastinum(self) -> Loft:
        """Return the column between the lungs."""
        a = self.anatomy
        return _loft(
            a.tall,
            half_width=[(-150, 30), (-60, 27), (0, 29), (45, 27 * (0.7 + 0.3 * a.aorta)), (90, 25), (130, 26)],
            half_depth=[(-150, 70), (0, 72), (60, 62), (130, 44)],
            centre_z=[(-150, -4), (60, -8), (130, -22)],
            wide=a.wide,
            deep=a.deep,
        )

    def dome(self, rays: Rays, side: int) -> Span:
        """Return the chords of the belly under one side of the diaphragm."""
        a, top = self.anatomy, self.dome_top(side)
        height = 100 * a.tall
        centre = (side * 70 * a.wide, top - height, 10.0)
        return rays.ellipsoid(centre, (74 * a.wide, height, 96 * a.deep))

    def belly(self, rays: Rays) -> Span:
        """Return the chords of what lies below both domes, in the midline."""
        a, top = self.anatomy, min(self.dome_top(LEFT), self.dome_top(RIGHT))
        return rays.ellipsoid((0.0, top - 108 * a.tall, 4.0), (132 * a.wide, 96 * a.tall, 88 * a.deep))

    def heart(self, rays: Rays, enlarged: float) -> list[Span]:
        """Return the chords of heart, right atrium, aortic knob, descending aorta's arch and pulmonary trunk."""
        a = self.anatomy
        low = (self.dome_top(LEFT) + self.dome_top(RIGHT)) / 2
        size = a.heart * a.wide * (1.06 - 0.06 * self.breath.depth)
        big = size * enlarged
        spread = (enlarged - 1) * 26
        return [
            rays.ellipsoid((20 * size + spread, low + 36 * size, 26.0), (66 * big, 44 * big, 44 * big), a.heart_lean),
            rays.ellipsoid((-12 * size - spread / 4, low + 40 * size, 20.0), (32 * big, 42 * size, 36 * size)),
            rays.ellipsoid((20 * a.wide, 50 * a.tall, -12.0), (17 * a.aorta, 17 * a.aorta, 26.0)),
            rays.ellipsoid((21 * a.wide, 22 * a.tall, 10.0), (17 * size, 22 * size, 20.0)),
        ]


_CAGE_WIDTH: list[tuple[float, float]] = [
    (-230, 128),
    (-130, 139),
    (-70, 142),
    (0, 137),
    (50, 119),
    (80, 99),
    (105, 74),
    (130, 46),
]


def _loft(
    tall: float,
    *,
    half_width: list[tuple[float, float]],
    half_depth: list[tuple[float, float]],
    centre_z: list[tuple[float, float]],
    wide: float,
    deep: float,
    reach: float = 24,
) -> Loft:
    """Return a loft in the midline through knots (height, value), smoothed over `reach` mm."""
    at = HEIGHTS / tall
    width, depth, z = (_smooth(_through(knots, at), reach) for knots in (half_width, half_depth, centre_z))
    return Loft(np.zeros_like(z), z, width * np.float32(wide), depth * np.float32(deep))


def _through(knots: list[tuple[float, float]], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values at heights `at` on the line through knots (height, value)."""
    heights, values = np.array(knots).T
    return np.asarray(np.interp(at, heights, values))


def _smooth(table: NDArray[np.float64], reach: float) -> NDArray[np.float32]:
    """Return a table over HEIGHTS smoothed by a Hann window `reach` mm long, float32 (T,)."""
    taps = 2 * int(reach) + 1  # HEIGHTS has two entries a mm
    window = np.hanning(taps + 2)[1:-1]
    padded = np.pad(table, taps // 2, mode="edge")
    return np.asarray(np.convolve(padded, window / window.sum(), mode="valid"), np.float32)
