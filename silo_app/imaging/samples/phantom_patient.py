"""Makes the DICOM files of one phantom patient, encoded as the patient's hospital does, and marked as synthetic."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import Finding
from silo_app.imaging.samples.acquisition import Exposure, expose
from silo_app.imaging.samples.dicom_file import Display, Identity, add_pixels, equipment, header, uid, write
from silo_app.imaging.samples.hospitals import DX, Hospital, Style, hospital
from silo_app.imaging.samples.patients import Patient, Visit, draw_patient
from silo_app.imaging.samples.rays import Field

T = TypeVar("T")

MARK = "SYNTHETIC PHANTOM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One patient to make."""

    seed: int
    hospital: int
    patient: int
    studies: int
    folder: Path  # the hospital's DICOM folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made: every study's UID with its findings, and the number of images."""

    hospital: int
    patient: int
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    images: int


def make_patient(order: Order) -> Made:
    """Write all images of one patient and return their labels; the same order gives the same bytes."""
    where = hospital(order.hospital)
    random = np.random.default_rng((order.seed, order.hospital, order.patient))
    patient = draw_patient(where, order.studies, random)
    labels = []
    for number, visit in enumerate(patient.visits, start=1):
        study = uid("phantom", order.seed, where.name, order.patient, number)
        folder = order.folder / f"P{order.patient:04d}" / f"S{number:02d}"
        folder.mkdir(parents=True)
        for view in range(1, visit.views + 1):
            exposure = expose(patient.anatomy, visit.abnormal, where.room, random)
            identity = _identity(order, patient, study, number, view)
            _write(exposure, identity, where, folder / f"IM{view:02d}.dcm", random)
        labels.append((study, findings(visit)))
    images = sum(visit.views for visit in patient.visits)
    return Made(hospital=order.hospital, patient=order.patient, labels=tuple(labels), images=images)


def findings(visit: Visit) -> tuple[str, ...]:
    """Return the names of what a patient had at a visit, "No Finding" for nothing."""
    return tuple(sorted({one.finding.value for one in visit.abnormal})) or (Finding.NO_FINDING.value,)


def _identity(order: Order, patient: Patient, study: str, number: int, view: int) -> Identity:
    where, visit = hospital(order.hospital), patient.visits[number - 1]
    letter = where.name.removeprefix("hospital-").upper()
    return Identity(
        patient_id=f"PH{letter}{order.patient:05d}",
        patient_name=f"Phantom^{letter}{order.patient:05d}",
        sex=patient.sex,
        age=visit.age,
        born=patient.born,
        day=visit.day,
        accession=f"{letter}{order.patient:05d}{number:02d}",
        institution=f"{where.display_name} (synthetic)",
        study_uid=study,
        series_uid=uid(study, "series", view),
        instance_uid=uid(study, "instance", view),
        series_number=view,
    )


def _write(exposure: Exposure, identity: Identity, where: Hospital, file: Path, random: np.random.Generator) -> None:
    style = where.style
    ds = header(identity, style.sop_class, exposure.position, f"{MARK} chest {exposure.position.value}")
    ds.Manufacturer, ds.ManufacturerModelName, ds.KVP = style.manufacturer, style.model, exposure.kvp
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""] if style.sop_class == DX else ["ORIGINAL", "PRIMARY"]
    ds.ImageComments = f"{MARK}: computed from a parametric thorax; not a patient"
    ds.QualityControlImage = "YES"  # PS3.3 C.7.6.1.1: "quality control or phantom image"
    item = equipment("Computed the image from a parametric thorax", code="109101", meaning="Acquisition Equipment")
    ds.ContributingEquipmentSequence = [item]
    ds.DistanceSourceToDetector = exposure.source_to_detector
    ds.DistanceSourceToPatient = round(exposure.source_to_patient)
    if style.sop_class == DX:
        ds.ImagerPixelSpacing = [exposure.spacing, exposure.spacing]
    else:
        magnification = exposure.source_to_detector / exposure.source_to_patient
        ds.PixelSpacing = [round(exposure.spacing / magnification, 3)] * 2
    bits = _choose(style.bits, random)
    stored, display = encode(exposure.picture, bits, style, random)
    add_pixels(ds, stored, bits, display)
    write(ds, file, _choose(style.syntaxes, random))


def encode(picture: Field, bits: int, style: Style, random: np.random.Generator) -> tuple[NDArray[np.uint16], Display]:
    """Return stored values uint16 (H, W) of a picture in [0, 1], and how they are to be displayed."""
    top = 2**bits - 1
    low, high = random.uniform(0.02, 0.2) * top, random.uniform(0.7, 0.97) * top
    stored = np.rint(low + picture * (high - low)).astype(np.uint16)
    centre = (low + high) / 2 + random.normal(0, 0.03) * (high - low)
    width = (high - low) * random.uniform(0.9, 1.15)
    inverted = bool(random.random() < style.inverted)
    if inverted:
        stored, centre = (top - stored).astype(np.uint16), top - centre
    kind, scaling = _choose(style.voi, random), _choose(style.rescale, random)
    if kind == "lut":
        return stored, Display(inverted=inverted, rescale=_SCALES["identity"], table=curve(top, centre, width))
    slope, intercept = _SCALES[scaling] or (1.0, 0.0)
    window = (round(centre * slope + intercept, 1), round(width * slope * (0.75 if kind == "sigmoid" else 1), 1))
    return stored, Display(inverted=inverted, rescale=_SCALES[scaling], window=window, function=_FUNCTIONS.get(kind, ""))


def curve(top: int, centre: float, width: float) -> NDArray[np.uint16]:
    """Return a rising S-shaped VOI table over 0..top, with 12-bit results."""
    value = np.clip((np.arange(top + 1) - centre) / width + 0.5, 0, 1)
    return np.asarray(np.rint(4095 * (0.5 * value + 0.5 * value * value * (3 - 2 * value))), np.uint16)


_SCALES: dict[str, tuple[float, float] | None] = {"absent": None, "identity": (1.0, 0.0), "scaled": (0.5, -128.0)}
_FUNCTIONS = {"exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}


def _choose(shares: dict[T, float], random: np.random.Generator) -> T:
    keys = list(shares)
    return keys[int(random.choice(len(keys), p=np.array(list(shares.values()))))]
