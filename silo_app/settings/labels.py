"""Where findings come from: published sets' files, CSVs, FHIR, DICOM SR, a tag, or nowhere."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from silo_app.cases import Finding
from silo_app.settings.base import Settings


class Said(StrEnum):
    """What a cell of a label file says of a finding."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"
    UNKNOWN = "unknown"


class Uncertain(StrEnum):
    """What an uncertain finding counts as: the policies of CheXpert (Irvin et al. 2019)."""

    IGNORE = "u-ignore"
    """Unknown."""
    ONES = "u-ones"
    """Present."""
    ZEROS = "u-zeros"
    """Absent."""


VALUES = {
    "1": Said.PRESENT,
    "1.0": Said.PRESENT,
    "0": Said.ABSENT,
    "0.0": Said.ABSENT,
    "-1": Said.UNCERTAIN,
    "-1.0": Said.UNCERTAIN,
    "": Said.UNKNOWN,
}


class CsvLabels(Settings):
    """Labels in a CSV with a header line.

    `key` says what the values of `key_column` are. Findings are either names in one column (`findings_column`), or
    values in one column for each finding (`columns`). `mapping` turns local names into the shared vocabulary (names of
    the vocabulary map to themselves, whatever their case). `scope` lists the findings that whoever labelled the images
    looked for: one in the scope that is not named is absent, one outside the scope is unknown. A row that names
    "No Finding" (or maps to it) has every finding of the scope absent. A row of which no name is understood says nothing.
    """

    kind: Literal["csv"] = "csv"
    path: Path
    """The CSV file; a relative path is relative to the kit."""
    key: Literal["file", "image", "sop_instance_uid", "study_instance_uid", "accession_number", "patient_id"] = (
        "study_instance_uid"
    )
    """What the values of `key_column` name: files (with their extension), files by their name alone (`image`, whatever
    the extension), images, studies, orders or patients."""
    key_column: str = "study_instance_uid"
    """The column of keys."""
    findings_column: str = "findings"
    """The column of findings; not read when there are `columns`."""
    separator: str = Field(default="|", min_length=1)
    """What separates findings in one value."""
    mapping: dict[str, Finding | None] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary, or null for one that is right and has no name there."""
    columns: dict[str, Finding] = Field(default_factory=dict)
    """Column: the finding of which it holds values."""
    values: dict[str, Said] = Field(default_factory=lambda: dict(VALUES))
    """Value in one of the `columns`: present, absent, uncertain or unknown."""
    uncertain: Uncertain = Uncertain.IGNORE
    """What an uncertain finding counts as: u-ignore (unknown), u-ones (present) or u-zeros (absent)."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """What separates columns, such as ";" or a tab."""
    encoding: Literal["utf-8", "utf-16", "latin-1", "cp1252"] = "utf-8"
    """How the file is encoded; a byte order mark at its begin is passed over."""


class PresetLabels(Settings):
    """Labels as a published data set brings them; `silo labels presets` tells what each preset reads."""

    kind: Literal["preset"] = "preset"
    preset: Literal["nih", "chexpert", "mimic", "padchest", "vindr", "vindr-images", "rsna", "rsna-classes"]
    """The data set, and which of its files."""
    path: Path
    """The CSV file; a relative path is relative to the kit."""
    images: Path | None = None
    """For `mimic`: the metadata CSV that names each image's study (`dicom_id`, `study_id`); without it, studies are
    told by their folders (`s50414267`)."""
    uncertain: Uncertain = Uncertain.IGNORE
    """For `chexpert` and `mimic`: what an uncertain finding counts as: u-ignore (unknown), u-ones or u-zeros."""
    scope: tuple[Finding, ...] | None = None
    """The findings that were looked for, instead of the preset's own."""


class FhirLabels(Settings):
    """Coded conclusions of FHIR DiagnosticReports, one JSON resource a line (ndjson, a bulk export).

    A report is matched by the study UID or accession number that it names. Codes of SNOMED CT and RadLex are known;
    `codes` and `mapping` add your own. Text is compared as a whole term; sentences are not interpreted.
    """

    kind: Literal["fhir"] = "fhir"
    path: Path
    """The ndjson file; a relative path is relative to the kit."""
    codes: dict[str, Finding] = Field(default_factory=dict)
    """Code, as "system|code" or the code alone: finding of the shared vocabulary."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local term (a code's display, or a conclusion's text): finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings of which every report would speak if they were there."""


class SrLabels(Settings):
    """Coded findings of DICOM Structured Reports (TID 1500, TID 2000 and what is built like them).

    A finding is of the images that its item refers to; without one, of the report's study.
    """

    kind: Literal["sr"] = "sr"
    path: Path
    """A folder of SR files, read recursively; a relative path is relative to the kit."""
    codes: dict[str, Finding] = Field(default_factory=dict)
    """Code, as "scheme|code" or the code alone: finding of the shared vocabulary."""
    mapping: dict[str, Finding] = Field(default_factory=dict)
    """Local term (a code's meaning): finding of the shared vocabulary."""
    scope: tuple[Finding, ...] = ()
    """The findings of which every report would speak if they were there."""


class TagLabels(Settings):
    """Labels in a DICOM attribute of the files themselves, named by its keyword; values as in `CsvLabels`.

    Text of which no word is known says nothing at all.
    """

    kind: Literal["tag"] = "tag"
    keyword: str = "StudyDescription"
    """The attribute's keyword (DICOM PS3.6)."""
    separator: str = Field(default="|", min_length=1)
    """What separates findings in one value."""
    mapping: dict[str, Finding | None] = Field(default_factory=dict)
    """Local name: finding of the shared vocabulary, or null for one that is right and has no name there."""
    scope: tuple[Finding, ...] = ()
    """The findings that were looked for."""


class NoLabels(Settings):
    """No labels: the silo still embeds, indexes and searches."""

    kind: Literal["none"] = "none"


Labels = Annotated[CsvLabels | PresetLabels | FhirLabels | SrLabels | TagLabels | NoLabels, Field(discriminator="kind")]
