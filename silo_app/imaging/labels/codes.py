"""Codes of radiological findings -> the shared vocabulary: SNOMED CT and RadLex, as DICOM and FHIR write them.

Codes are only listed where code and meaning were checked against DICOM's context groups (PS3.16 CID 6104, 6105) or a
published table; a silo adds its own under `labels.codes`. A code for a group that is wider than our word is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from silo_app.cases import Finding
from silo_app.imaging.labels.vocabulary import Terms

__all__ = ["ABSENT", "PRESENT", "CodeBook"]

_SNOMED = {
    "46621007": Finding.ATELECTASIS,
    "40779009": Finding.ATELECTASIS,  # plate-like atelectasis
    "8186001": Finding.CARDIOMEGALY,
    "95436008": Finding.CONSOLIDATION,
    "19242006": Finding.EDEMA,
    "60046008": Finding.EFFUSION,
    "87433001": Finding.EMPHYSEMA,
    "51615001": Finding.FIBROSIS,
    "125605004": Finding.FRACTURE,
    "33737001": Finding.FRACTURE,  # of a rib
    "84089009": Finding.HERNIA,  # hiatal
    "309529002": Finding.MASS,
    "4147007": Finding.MASS,
    "427359005": Finding.NODULE,
    "27925004": Finding.NODULE,
    "308689002": Finding.NODULE,  # coin lesion
    "233604007": Finding.PNEUMONIA,
    "36118008": Finding.PNEUMOTHORAX,
}
_RADLEX = {
    "RID28493": Finding.ATELECTASIS,
    "RID43255": Finding.CONSOLIDATION,
    "RID4866": Finding.EDEMA,
    "RID34539": Finding.EFFUSION,
    "RID4799": Finding.EMPHYSEMA,
    "RID4650": Finding.FRACTURE,
    "RID28530": Finding.LUNG_OPACITY,
    "RID3874": Finding.MASS,
    "RID50149": Finding.NODULE,
    "RID5350": Finding.PNEUMONIA,
    "RID5352": Finding.PNEUMOTHORAX,
}
_DICOM = {"112121": Finding.INFILTRATION, "112122": Finding.NODULE}  # PS3.16 Annex D: infiltrate, micronodule

_SCHEMES = {
    "sct": "SCT",
    "srt": "SRT",
    "http://snomed.info/sct": "SCT",
    "urn:oid:2.16.840.1.113883.6.96": "SCT",
    "radlex": "RADLEX",
    "http://radlex.org": "RADLEX",
    "http://www.radlex.org": "RADLEX",
    "https://radlex.org": "RADLEX",
    "urn:oid:2.16.840.1.113883.6.256": "RADLEX",
    "dcm": "DCM",
    "http://dicom.nema.org/resources/ontology/dcm": "DCM",
}

PRESENT = frozenset({"52101004", "373066001", "RID28472", "G-A203", "R-0038D"})
"""Codes of values that affirm: present, yes (PS3.16 CID 240 and 230 in SNOMED CT and in the older SRT; RadLex)."""
ABSENT = frozenset({"2667000", "272519000", "373067005", "RID28473", "R-4089B", "R-00339"})
"""Codes of values that deny: absent, no."""


@dataclass(slots=True)
class CodeBook:
    """Codes and terms that a silo's reports may use."""

    codes: Mapping[str, Finding]
    """The silo's own, as "scheme|code" or the code alone; before ours."""
    terms: Terms
    _ours: dict[tuple[str, str], Finding] = field(init=False)

    def __post_init__(self) -> None:
        """Put our tables together."""
        tables = {"SCT": _SNOMED, "RADLEX": _RADLEX, "DCM": _DICOM}
        self._ours = {(scheme, code): finding for scheme, table in tables.items() for code, finding in table.items()}

    def finding(self, scheme: str, code: str, meaning: str) -> Finding | None:
        """Return what a code means, by the code, else by its meaning as a whole term; one that means nothing is counted."""
        known = _SCHEMES.get(scheme.strip().rstrip("/").casefold(), scheme)
        for name in (f"{scheme}|{code}", f"{known}|{code}", code):
            if name in self.codes:
                return self.codes[name]
        if (known, code) in self._ours:
            return self._ours[known, code]
        if meaning.strip():
            return self.terms.finding(meaning.strip())
        return self.terms.finding(f"code of {known[:20]}") if code else None
