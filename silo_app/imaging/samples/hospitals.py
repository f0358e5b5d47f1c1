"""The phantom hospitals: each has its own X-ray room, its own way of writing DICOM, and its own patients."""

from dataclasses import dataclass
from string import ascii_lowercase

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from silo_app.cases import Finding
from silo_app.imaging.samples.acquisition import Acquisition

DX, CR = DigitalXRayImageStorageForPresentation, ComputedRadiographyImageStorage


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a hospital's machine writes its files; every mapping is from a choice to its share."""

    manufacturer: str
    model: str
    sop_class: str
    bits: dict[int, float]  # stored bits
    inverted: float  # the share of MONOCHROME1
    voi: dict[str, float]  # "window", "exact", "sigmoid" or "lut"
    rescale: dict[str, float]  # "absent", "identity" or "scaled"
    syntaxes: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """One phantom hospital."""

    name: str
    display_name: str
    room: Acquisition
    style: Style
    women: float  # share
    ages: tuple[float, float]  # mean and deviation, years
    healthy: float  # the share of studies without a finding
    mix: dict[Finding, float]  # weights of the findings of the others


def hospital_name(index: int) -> str:
    """Return hospital-a, hospital-b, ... hospital-z, hospital-27, ..."""
    return f"hospital-{ascii_lowercase[index]}" if index < len(ascii_lowercase) else f"hospital-{index + 1}"


def display_name(index: int) -> str:
    """Return the name for people: Hospital A."""
    return hospital_name(index).replace("hospital-", "Hospital ").title()


def hospital(index: int) -> Hospital:
    """Return the phantom hospital at `index`; there are five kinds, taken in turn."""
    kind = _KINDS[index % len(_KINDS)]
    return Hospital(name=hospital_name(index), display_name=display_name(index), **kind)  # type: ignore[arg-type]


def _mix(**weights: float) -> dict[Finding, float]:
    return {finding: weights.get(finding.name.lower(), 1.0) for finding in _FINDINGS}


_FINDINGS = (
    Finding.CARDIOMEGALY,
    Finding.CONSOLIDATION,
    Finding.EFFUSION,
    Finding.MASS,
    Finding.NODULE,
    Finding.PNEUMOTHORAX,
)

_KINDS: list[dict[str, object]] = [
    {  # a teaching hospital: digital rooms, 12 bits, mostly standing patients
        "room": Acquisition(
            kvp=120,
            rows=320,
            columns=288,
            spacing=1.14,
            photons=9e5,
            scatter=0.35,
            blur=0.55,
            detail=0.8,
            detail_radius=8.0,
            latitude=0.55,
            anterior=0.15,
        ),
        "style": Style(
            manufacturer="Siloscope Phantom Works",
            model="Standing DR 120",
            sop_class=DX,
            bits={12: 0.8, 14: 0.2},
            inverted=0.35,
            voi={"window": 0.7, "sigmoid": 0.15, "lut": 0.15},
            rescale={"identity": 1.0},
            syntaxes={ExplicitVRLittleEndian: 0.5, JPEGLSLossless: 0.25, JPEG2000Lossless: 0.25},
        ),
        "women": 0.5,
        "ages": (54.0, 17.0),
        "healthy": 0.27,
        "mix": _mix(nodule=1.3, mass=1.3, cardiomegaly=0.8),
    },
    {  # a bedside service: storage plates, low voltage, many AP views, mostly MONOCHROME1
        "room": Acquisition(
            kvp=90,
            rows=256,
            columns=288,
            spacing=1.26,
            photons=3e5,
            scatter=0.8,
            blur=0.8,
            detail=0.45,
            detail_radius=6.0,
            latitude=0.7,
            anterior=0.6,
        ),
        "style": Style(
            manufacturer="Siloscope Phantom Works",
            model="Bedside CR 90",
            sop_class=CR,
            bits={10: 0.6, 12: 0.4},
            inverted=0.8,
            voi={"window": 0.6, "exact": 0.4},
            rescale={"absent": 0.5, "scaled": 0.5},
            syntaxes={ImplicitVRLittleEndian: 0.5, RLELossless: 0.3, ExplicitVRLittleEndian: 0.2},
        ),
        "women": 0.42,
        "ages": (66.0, 14.0),
        "healthy": 0.25,
        "mix": _mix(effusion=1.3, cardiomegaly=1.3, consolidation=1.1, nodule=0.8),
    },
    {  # a lung clinic: a flat detector with 15 bits and strong processing
        "room": Acquisition(
            kvp=133,
            rows=304,
            columns=304,
            spacing=1.17,
            photons=1.5e6,
            scatter=0.25,
            blur=0.4,
            detail=1.3,
            detail_radius=10.0,
            latitude=0.45,
            anterior=0.25,
        ),
        "style": Style(
            manufacturer="Phantom Imaging Cooperative",
            model="Flat 133",
            sop_class=DX,
            bits={15: 0.7, 13: 0.3},
            inverted=0.1,
            voi={"lut": 0.4, "window": 0.4, "exact": 0.2},
            rescale={"identity": 1.0},
            syntaxes={ExplicitVRLittleEndian: 0.4, DeflatedExplicitVRLittleEndian: 0.3, JPEG2000Lossless: 0.3},
        ),
        "women": 0.55,
        "ages": (48.0, 18.0),
        "healthy": 0.3,
        "mix": _mix(pneumothorax=1.4, consolidation=1.2, effusion=0.9, cardiomegaly=0.8),
    },
    {  # a district hospital: plates read coarsely, everything uncompressed
        "room": Acquisition(
            kvp=105,
            rows=288,
            columns=256,
            spacing=1.26,
            photons=5e5,
            scatter=0.55,
            blur=0.9,
            detail=0.3,
            detail_radius=12.0,
            latitude=0.8,
            anterior=0.35,
        ),
        "style": Style(
            manufacturer="Phantom Imaging Cooperative",
            model="Plate 105",
            sop_class=CR,
            bits={12: 1.0},
            inverted=0.5,
            voi={"window": 1.0},
            rescale={"absent": 0.7, "identity": 0.3},
            syntaxes={ExplicitVRLittleEndian: 0.6, ImplicitVRLittleEndian: 0.4},
        ),
        "women": 0.5,
        "ages": (58.0, 16.0),
        "healthy": 0.4,
        "mix": _mix(cardiomegaly=1.2, effusion=1.1),
    },
    {  # a screening centre: young, mostly healthy, standing
        "room": Acquisition(
            kvp=125,
            rows=288,
            columns=320,
            spacing=1.13,
            photons=7e5,
            scatter=0.4,
            blur=0.6,
            detail=0.95,
            detail_radius=7.0,
            latitude=0.6,
            anterior=0.05,
        ),
        "style": Style(
            manufacturer="Siloscope Phantom Works",
            model="Screening DR 125",
            sop_class=DX,
            bits={14: 0.6, 11: 0.4},
            inverted=0.25,
            voi={"sigmoid": 0.5, "window": 0.5},
            rescale={"identity": 1.0},
            syntaxes={JPEGLSLossless: 0.5, RLELossless: 0.5},
        ),
        "women": 0.6,
        "ages": (42.0, 13.0),
        "healthy": 0.45,
        "mix": _mix(nodule=1.4, mass=1.1, effusion=0.8),
    },
]
