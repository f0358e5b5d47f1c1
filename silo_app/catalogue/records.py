"""What goes into the catalogue and comes out of it, as frozen types."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from silo_app.cases import Finding, PatientKey, Sex, Split, ViewPosition

__all__ = ["CatalogueCounts", "FileRecord", "FindingCount", "Label", "Origin", "Refusal", "ViewKeys", "ViewRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that is no view; the path stays inside the silo."""

    source: str
    """The source's folder."""
    path: str
    """Relative to the source."""
    reason: str
    """One of `silo_app.imaging.refusal.RefusalReason`."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a source, as it was when it was read."""

    source: str
    """The source's folder."""
    path: str
    """Relative to the source, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int
    recipe: str
    """What read it; a file that another version read is read again."""
    digest: str | None = None
    """The view that it holds, or None if it was refused."""
    reason: str = ""
    detail: str = ""
    instance: str = ""
    """Of a duplicate: the image (`ViewKeys.instance`) that another file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewKeys:
    """Keyed pseudonyms of one image and what it belongs to (`SiloKey`); never a UID or number in clear."""

    instance: str
    """Of the SOP Instance UID; of the content where the file has none."""
    study: str
    """Of the patient and the study: what one case id stands for."""
    study_uid: str
    accession: str
    patient: PatientKey
    patient_id: str
    """Of the Patient ID alone, as a label file may name it."""
    series: str = ""
    """Of the study and the series; "" where the file names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRecord:
    """A view to be added."""

    digest: str
    keys: ViewKeys
    split: Split
    """For a patient who is new; a known one keeps the split drawn first."""
    position: ViewPosition = ViewPosition.UNKNOWN
    sex: Sex = Sex.UNKNOWN
    age: int | None = None
    study_year: int | None = None
    device: str = ""
    height: int = 0
    width: int = 0
    spacing_mm: float | None = None
    source_rows: int | None = None
    """Rows of the stored image, before it was reduced."""
    source_columns: int | None = None
    brightness: bytes | None = None
    """How often each of 32 equal ranges of brightness occurs: uint32 (32,), little-endian."""
    burned_in: bool | None = None
    """Whether the picture seems to name its patient; None where nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where labels came from: which file, how it was read, since when."""

    source: str
    """The file's name, or the DICOM keyword; no path."""
    preset: str = ""
    """How it was read: a preset and its version, or the kind of labels."""
    digest: str = ""
    """SHA-256 of the file, hex; "" for an attribute of the images themselves."""
    since: str = field(default="", compare=False)
    """When it was first applied, ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One known finding of one view, and where it is known from."""

    finding: Finding
    present: bool
    source: str
    """The label file's name and column, or the DICOM keyword."""
    term: str = ""
    """The local word that was mapped; "" for an absence that follows from the scope."""
    origin: Origin | None = None
    """The file that says so; None for labels that were written before origins were kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCount:
    """In how many views a finding is present, absent and unknown."""

    present: int
    absent: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueCounts:
    """What the silo holds; usable images only, but for `refused`."""

    patients: int = 0
    cases: int = 0
    series: int = 0
    views: int = 0
    splits: Mapping[Split, int] = field(default_factory=dict)
    positions: Mapping[ViewPosition, int] = field(default_factory=dict)
    sexes: Mapping[Sex, int] = field(default_factory=dict)
    age_bands: Mapping[str, int] = field(default_factory=dict)
    """By `cases.age_band`; "" where the age is unknown."""
    study_years: Mapping[int | None, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    """By the longer side of the stored image, in pixels; "" where it is not known."""
    brightness: tuple[float, ...] = ()
    """The mean share of each of 32 ranges of brightness, dark to bright."""
    origins: Mapping[Origin, int] = field(default_factory=dict)
    """Views by the file that their labels came from."""
    findings: Mapping[Finding, FindingCount] = field(default_factory=dict)
    """Every finding of the vocabulary that is known for at least one view."""
    unlabelled: int = 0
    """Views of which no finding is known."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Files by reason."""
