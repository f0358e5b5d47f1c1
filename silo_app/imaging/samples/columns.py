"""Which columns of a label CSV mean what: given by hand, or recognised by the header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from silo_app.cases import Finding, ViewPosition
from silo_app.errors import LabelsInvalid, SampleInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of a CSV's columns; an empty name is a column that the CSV does not have."""

    file: str = "file"
    patient: str = "patient_id"
    findings: str = "findings"
    separator: str = "|"
    mapping: Mapping[str, Finding] = field(default_factory=dict)
    scope: tuple[Finding, ...] = ()
    """What the labels speak of; empty for everything that occurs in them."""
    age: str = ""
    sex: str = ""
    view: str = ""
    order: str = ""
    """A patient's images are numbered by this."""
    position: ViewPosition = ViewPosition.UNKNOWN
    """Of all images, where there is no column of views."""

    def required(self) -> dict[str, str]:
        """Return the names that must be in the header, with the option that sets each."""
        named = {
            "--file-column": self.file,
            "--patient-column": self.patient,
            "--findings-column": self.findings,
            "--age-column": self.age,
            "--sex-column": self.sex,
            "--view-column": self.view,
        }
        return {name: option for option, name in named.items() if name}


NIH_SCOPE = (
    Finding.ATELECTASIS,
    Finding.CARDIOMEGALY,
    Finding.CONSOLIDATION,
    Finding.EDEMA,
    Finding.EFFUSION,
    Finding.EMPHYSEMA,
    Finding.FIBROSIS,
    Finding.HERNIA,
    Finding.INFILTRATION,
    Finding.MASS,
    Finding.NODULE,
    Finding.PLEURAL_THICKENING,
    Finding.PNEUMONIA,
    Finding.PNEUMOTHORAX,
)
"""The fourteen findings of ChestX-ray14 (Wang et al. 2017)."""

PRESETS: dict[str, Columns] = {
    "pediatric": Columns(  # Kermany et al. 2018: children, all AP, one finding
        findings="finding",
        mapping={"normal": Finding.NO_FINDING, "pneumonia": Finding.PNEUMONIA},
        scope=(Finding.PNEUMONIA,),
        position=ViewPosition.AP,
    ),
    "nih": Columns(
        findings="finding_labels",
        scope=NIH_SCOPE,
        age="age",
        sex="sex",
        view="view_position",
        order="follow_up",
    ),
    "nih-original": Columns(  # Data_Entry_2017.csv as the NIH publishes it
        file="Image Index",
        patient="Patient ID",
        findings="Finding Labels",
        scope=NIH_SCOPE,
        age="Patient Age",
        sex="Patient Gender",
        view="View Position",
        order="Follow-up #",
    ),
}
_SIGNATURES: dict[str, frozenset[str]] = {
    "pediatric": frozenset({"file", "patient_id", "finding", "subtype"}),
    "nih": frozenset({"file", "patient_id", "finding_labels", "view_position", "follow_up"}),
    "nih-original": frozenset({"Image Index", "Patient ID", "Finding Labels", "View Position"}),
}


def preset(header: Sequence[str]) -> str | None:
    """Return the name of the preset that a CSV's header belongs to."""
    return next((name for name, columns in _SIGNATURES.items() if columns <= set(header)), None)


def columns_for(header: Sequence[str], given: Mapping[str, Any]) -> Columns:
    """Return the columns of a CSV: those of its preset, changed by what is `given` by hand."""
    return replace(PRESETS.get(preset(header) or "", Columns()), **given)


def check(columns: Columns, header: Sequence[str], where: str) -> None:
    """Raise `LabelsInvalid` unless `header` has every column that is named, saying which are there."""
    missing = {name: option for name, option in columns.required().items() if name not in header}
    if missing:
        names, options = ", ".join(map(repr, missing)), ", ".join(missing.values())
        raise LabelsInvalid(
            f"column {names} is missing; the columns are {', '.join(map(repr, header)) or 'none'}",
            where=where,
            remedy=f"Name the right column with {options}.",
        )


def shared(name: str, mapping: Mapping[str, Finding]) -> Finding | None:
    """Return a local name in the shared vocabulary, None if it has none; case, "_" and "-" do not matter."""
    key = _plain(name)
    for local, finding in mapping.items():
        if _plain(local) == key:
            return finding
    return _VOCABULARY.get(key)


def finding(name: str) -> Finding:
    """Return the finding called `name`. Raises `SampleInvalid` with the whole vocabulary."""
    known = _VOCABULARY.get(_plain(name))
    if known is None:
        raise SampleInvalid(
            f"{name!r} is not in the shared vocabulary", remedy=f"Use one of: {', '.join(f.value for f in Finding)}."
        )
    return known


def parse_mapping(pairs: Sequence[str]) -> dict[str, Finding]:
    """Return the mapping that "local=Shared" pairs spell. Raises `SampleInvalid`."""
    mapping = {}
    for pair in pairs:
        local, equals, name = pair.partition("=")
        if not equals or not local.strip():
            raise SampleInvalid(f"{pair!r} is not a mapping", remedy='Write "local name=Shared name".')
        mapping[local.strip()] = finding(name)
    return mapping


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()


_VOCABULARY = {_plain(one.value): one for one in Finding}
