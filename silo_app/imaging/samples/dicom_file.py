"""Writes sample radiographs as DICOM files, in the ways that real machines do (PS3.3 A.2 CR and A.26 DX images).

The same arguments give the same bytes: UIDs are hashes, and no clock is read.
"""

import datetime as dt
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from silo_app.cases import Sex, ViewPosition

FORMAT = "1"
"""Version of what is written: bytes may differ between two of them, never within one."""

COMPRESSED = frozenset({JPEG2000Lossless, JPEGLSLossless, RLELossless})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who and when, as the header names them."""

    patient_id: str
    patient_name: str
    sex: Sex
    age: int | None  # years
    born: dt.date | None
    day: dt.date | None
    accession: str
    institution: str
    study_uid: str
    series_uid: str
    instance_uid: str
    series_number: int = 1
    instance_number: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """How stored values become a picture: rescale, then window or table, then polarity (PS3.3 C.11, C.7.6.3.1.2)."""

    inverted: bool = False  # MONOCHROME1
    rescale: tuple[float, float] | None = None  # slope, intercept
    window: tuple[float, float] | None = None  # centre, width, in rescaled values
    function: str = ""  # LINEAR_EXACT or SIGMOID; LINEAR if empty
    table: NDArray[np.uint16] | None = None  # a VOI LUT over all stored values


def uid(*parts: object) -> str:
    """Return a UID made from `parts`, always the same for the same (PS3.5 B.2: a UUID under 2.25)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


def header(identity: Identity, sop_class: str, position: ViewPosition, description: str) -> Dataset:
    """Return a dataset with patient, study, series and equipment, and without an image."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = UID(sop_class), UID(identity.instance_uid)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = identity.study_uid, identity.series_uid
    day = identity.day.strftime("%Y%m%d") if identity.day else ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000" if day else ""
    ds.AccessionNumber = ds.StudyID = identity.accession
    ds.InstitutionName = identity.institution
    ds.ReferringPhysicianName = ""
    ds.PatientName, ds.PatientID = identity.patient_name, identity.patient_id
    ds.PatientBirthDate = identity.born.strftime("%Y%m%d") if identity.born else ""
    ds.PatientSex = identity.sex.value if identity.sex is not Sex.UNKNOWN else ""
    if identity.age is not None:
        ds.PatientAge = f"{identity.age:03d}Y"
    dx = sop_class == DigitalXRayImageStorageForPresentation
    ds.Modality = "DX" if dx else "CR"
    ds.StudyDescription, ds.SeriesDescription = "Chest", description
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "" if position is ViewPosition.UNKNOWN else position.value
    ds.SeriesNumber, ds.InstanceNumber = identity.series_number, identity.instance_number
    ds.PatientOrientation = ["L", "F"]
    if dx:
        ds.PresentationIntentType = "FOR PRESENTATION"
        ds.ImageLaterality = "U"
        ds.BurnedInAnnotation = "NO"
    return ds


def equipment(contribution: str, *, code: str, meaning: str) -> Dataset:
    """Return an item of the Contributing Equipment Sequence (PS3.3 C.12.1): what this program did to the image."""
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code, "DCM", meaning
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Items([purpose])
    item.Manufacturer, item.ManufacturerModelName = "Siloscope", "silo sample"
    item.SoftwareVersions = FORMAT
    item.ContributionDescription = contribution
    return item


def add_pixels(ds: Dataset, stored: NDArray[np.unsignedinteger], bits: int, display: Display) -> None:
    """Put stored values (H, W), of which `bits` are used, and their display into the dataset."""
    ds.SamplesPerPixel, ds.Rows, ds.Columns = 1, stored.shape[0], stored.shape[1]
    ds.PhotometricInterpretation = "MONOCHROME1" if display.inverted else "MONOCHROME2"
    if ds.Modality == "DX":
        ds.PresentationLUTShape = "INVERSE" if display.inverted else "IDENTITY"
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1 if display.inverted else 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = stored.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = 0
    if display.rescale is not None:
        ds.RescaleSlope, ds.RescaleIntercept = display.rescale
        ds.RescaleType = "US"
    if display.window is not None:
        ds.WindowCenter, ds.WindowWidth = display.window
        if display.function:
            ds.VOILUTFunction = display.function
    if display.table is not None:
        ds.VOILUTSequence = Items([_table(display.table)])
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)  # an even length, PS3.5 8.1.1


def write(ds: Dataset, file: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    """Write the dataset to a new `file` in a transfer syntax."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian if syntax in COMPRESSED else syntax)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 or UID(syntax).is_implicit_VR else "OB"
    if syntax in COMPRESSED:
        ds.compress(UID(syntax), generate_instance_uid=False)
    ds.save_as(file, enforce_file_format=True)


def _table(values: NDArray[np.uint16]) -> Dataset:
    """Return a VOI LUT (PS3.3 C.11.2) that starts at stored value 0."""
    item = Dataset()
    bits = max(int(values.max()).bit_length(), 10)
    item.add_new("LUTDescriptor", "US", [len(values) % 65536, 0, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    item.LUTExplanation = "contrast"
    return item
