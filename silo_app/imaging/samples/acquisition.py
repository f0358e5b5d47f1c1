"""How a hospital takes its radiographs: tube, detector and display processing; one exposure from thorax to picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from silo_app.cases import ViewPosition
from silo_app.imaging.samples.attenuation import attenuation
from silo_app.imaging.samples.findings import Abnormality
from silo_app.imaging.samples.noise import blur
from silo_app.imaging.samples.projection import line_integrals
from silo_app.imaging.samples.rays import Field, Geometry
from silo_app.imaging.samples.thorax import Anatomy, Breath, Thorax

MARGIN = 110.0  # mm from the middle of the body to the detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """One hospital's X-ray room."""

    kvp: float
    rows: int
    columns: int
    spacing: float  # mm on the detector
    photons: float  # a pixel in the open beam, at the usual exposure
    scatter: float  # scattered over primary photons behind the grid, mean
    blur: float  # px, the detector's
    detail: float  # gain of the unsharp mask
    detail_radius: float  # mm
    latitude: float  # how much of the large-scale contrast is kept
    anterior: float  # the share of AP (bedside) exposures


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One picture: bright is dense, float32 (H, W) in [0, 1], with what its header needs."""

    picture: Field
    position: ViewPosition
    kvp: float
    spacing: float  # mm between pixels on the detector
    source_to_detector: float  # mm
    source_to_patient: float  # mm


def expose(
    anatomy: Anatomy,
    abnormal: Sequence[Abnormality],
    room: Acquisition,
    random: np.random.Generator,
    position: ViewPosition | None = None,
) -> Exposure:
    """Return one radiograph of a patient, in a pose, breath and exposure drawn from `random`."""
    if position is None:
        position = ViewPosition.AP if random.random() < room.anterior else ViewPosition.PA
    thorax = Thorax(anatomy, draw_breath(position, random))
    view = draw_geometry(room, position, random)
    rays = view.rays()
    kvp = round(room.kvp * random.uniform(0.94, 1.06))
    integrals = line_integrals(thorax, rays, abnormal, attenuation(kvp), random)
    signal = detect(integrals, room, random)
    picture = process(signal, room, random)
    distance = view.source_to_detector
    return Exposure(
        picture=picture,
        position=position,
        kvp=kvp,
        spacing=round(view.spacing, 3),
        source_to_detector=distance,
        source_to_patient=distance - view.patient_to_detector,
    )


def draw_breath(position: ViewPosition, random: np.random.Generator) -> Breath:
    """Return how deeply the patient breathed in; in bed less than standing."""
    bedside = position is ViewPosition.AP
    depth = np.clip(random.normal(0.68 if bedside else 0.84, 0.2), 0.15, 1.0)
    aerated = np.clip(random.normal(1.0, 0.15), 0.6, 1.5)
    return Breath(depth=float(depth), aerated=float(aerated), shoulders=float(random.normal(8 if bedside else 0, 8)))


def draw_geometry(room: Acquisition, position: ViewPosition, random: np.random.Generator) -> Geometry:
    """Return where tube, patient and detector stood: 1.8 m for PA, about 1 m at the bedside."""
    bedside = position is ViewPosition.AP
    zoom = random.uniform(0.88, 1.14)  # the collimator and the crop
    return Geometry(
        rows=room.rows,
        columns=room.columns,
        spacing=room.spacing * zoom,
        source_to_detector=float(round(random.uniform(980, 1250) if bedside else random.uniform(1750, 1850))),
        patient_to_detector=MARGIN + random.uniform(0, 40),
        anterior=bedside,
        yaw=random.normal(0, 0.07 if bedside else 0.05),
        roll=random.normal(0, 0.055 if bedside else 0.04),
        shift=(random.normal(0, 14), random.normal(6, 17)),
    )


def detect(integrals: Field, room: Acquisition, random: np.random.Generator) -> Field:
    """Return minus the logarithm of what the detector measured, (H, W): scatter, heel effect, blur, quantum noise."""
    primary = np.exp(-integrals) * heel(integrals.shape, random)
    fraction = room.scatter * random.uniform(0.6, 1.4)
    scattered = fraction * blur(np.minimum(primary, 0.2), 40.0 / room.spacing)  # the open beam scatters in no patient
    expected = blur(primary + scattered, room.blur)
    photons = room.photons * np.exp(random.normal(0, 0.45))
    counted = random.poisson(np.maximum(expected, 0) * photons) + 0.5
    return np.asarray(-np.log(counted / photons), np.float32)


def heel(shape: tuple[int, ...], random: np.random.Generator) -> Field:
    """Return the beam's unevenness (H, W): the anode's heel effect, and a grid or tube that stands askew."""
    rows, columns = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None, :]
    slope = random.normal(0, (0.28, 0.28))
    return np.asarray(np.exp(slope[0] * rows + slope[1] * columns), np.float32)


def process(signal: Field, room: Acquisition, random: np.random.Generator) -> Field:
    """Return the picture that a reader sees (H, W) in [0, 1]: contrast, detail and range as the hospital likes them."""
    height, width = signal.shape
    centre = signal[height // 6 : -height // 6, width // 8 : -width // 8]
    low, high = np.percentile(centre, [random.uniform(1, 6), random.uniform(92, 99)])
    value = np.clip((signal - low) / (high - low), -0.4, 1.3)
    coarse = blur(value, 30.0 / room.spacing)
    fine = blur(value, room.detail_radius / room.spacing)
    gain = room.detail * random.uniform(0.6, 1.4)
    value = 0.5 + room.latitude * random.uniform(0.8, 1.2) * (coarse - 0.5) + (value - coarse) + gain * (value - fine)
    value = np.clip(0.5 + (value - 0.5) * random.uniform(0.7, 1.0) + random.normal(0, 0.06), 0.0, 1.0)
    return np.asarray(value ** np.exp(random.normal(0, 0.22)), np.float32)
