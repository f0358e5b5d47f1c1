"""The words of the domain as frozen types: case, view, finding, embedding (docs/glossary.md).

Nothing here reads a file or knows a library but numpy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CASE_BYTES",
    "CaseId",
    "Embedding",
    "EncoderVersion",
    "Finding",
    "PatientKey",
    "Sex",
    "Split",
    "View",
    "ViewPosition",
    "age_band",
    "is_encoder_version",
]

CaseId = NewType("CaseId", str)
"""A random 128-bit name of one study, hex; the only name of a study that may leave its silo."""
CASE_BYTES = 16
"""Of a case id, which is twice as long in hex."""

PatientKey = NewType("PatientKey", str)
"""A keyed pseudonym of one patient; never leaves the silo."""

EncoderVersion = NewType("EncoderVersion", str)
"""Digest of an encoder's weights and preprocessing, hex."""

_VERSION = re.compile(r"[0-9a-f]{32}")

Embedding = NDArray[np.float32]
"""A unit vector, float32 (D,)."""


class Finding(StrEnum):
    """The shared vocabulary: the 18 pathology names of TorchXRayVision (Cohen et al. 2022) and "No Finding"."""

    ATELECTASIS = "Atelectasis"
    CARDIOMEGALY = "Cardiomegaly"
    CONSOLIDATION = "Consolidation"
    EDEMA = "Edema"
    EFFUSION = "Effusion"
    EMPHYSEMA = "Emphysema"
    ENLARGED_CARDIOMEDIASTINUM = "Enlarged Cardiomediastinum"
    FIBROSIS = "Fibrosis"
    FRACTURE = "Fracture"
    HERNIA = "Hernia"
    INFILTRATION = "Infiltration"
    LUNG_LESION = "Lung Lesion"
    LUNG_OPACITY = "Lung Opacity"
    MASS = "Mass"
    NODULE = "Nodule"
    PLEURAL_THICKENING = "Pleural Thickening"
    PNEUMONIA = "Pneumonia"
    PNEUMOTHORAX = "Pneumothorax"
    NO_FINDING = "No Finding"


class ViewPosition(StrEnum):
    """View Position (0018,5101), DICOM PS3.3 C.8.7.1 and C.8.11.3, as far as chest radiographs use it."""

    AP = "AP"
    PA = "PA"
    LATERAL = "LATERAL"
    UNKNOWN = "UNKNOWN"


class Sex(StrEnum):
    """Patient's Sex (0010,0040)."""

    FEMALE = "F"
    MALE = "M"
    OTHER = "O"
    UNKNOWN = "U"


class Split(StrEnum):
    """Which use a patient's images have; drawn by patient, for ever."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One usable image of a case, as the silo's catalogue knows it; without pixels and without identifiers.

    `findings` maps what is known: True present, False absent; a finding that is not in it is unknown, not absent.
    """

    digest: str
    """The stored file's bytes, by their keyed name (`catalogue.ContentKey`), hex; also names its radiograph in the cache."""
    case: CaseId
    patient: PatientKey
    split: Split
    position: ViewPosition = ViewPosition.UNKNOWN
    sex: Sex = Sex.UNKNOWN
    age: int | None = None
    """Years, at the time of the study."""
    study_year: int | None = None
    device: str = ""
    """Manufacturer and model, for statistics inside the silo."""
    burned_in: bool | None = None
    """Whether the picture seems to name its patient; None where nobody looked."""
    findings: Mapping[Finding, bool] = field(default_factory=dict)


def is_encoder_version(text: str) -> bool:
    """Return whether `text` has the form of an `EncoderVersion`: 32 hexadecimal digits."""
    return _VERSION.fullmatch(text) is not None


def age_band(age: int | None) -> str:
    """Return the 10-year band of an age in years: "30-39", "90+" (45 CFR 164.514(b)(2)(i)(C)), or "" if unknown."""
    if age is None or age < 0:
        return ""
    if age >= 90:
        return "90+"
    low = age // 10 * 10
    return f"{low}-{low + 9}"
