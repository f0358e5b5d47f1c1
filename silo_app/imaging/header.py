"""What a header says of an image besides its pixels: identifiers for the pseudonyms, and the facts of a `View`.

Everything here is welcome and nothing is required. A `Header` holds identifiers in clear: it lives in memory between
the reader and `SiloKey`, and is never stored, logged or printed.
"""

import hashlib
import re
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from silo_app.cases import Sex, ViewPosition
from silo_app.imaging.attributes import identifier, item, text, word
from silo_app.imaging.parse import quiet

__all__ = ["Header", "header_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One image's identifiers (not shown by `repr`) and facts."""

    instance_uid: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    content: str = field(default="", repr=False)
    """SHA-256 of the file, hex, where it has no SOP Instance UID; as much of an identifier as that."""
    label: str | None = field(default=None, repr=False)
    """The text of the attribute that holds labels, if the silo has one."""
    position: ViewPosition = ViewPosition.UNKNOWN
    sex: Sex = Sex.UNKNOWN
    age: int | None = None
    study_year: int | None = None
    device: str = ""


@quiet()
def header_of(ds: Dataset, content: bytes, *, label_keyword: str = "", separator: str = "|") -> Header:
    """Read what the header of a file of these bytes says; an attribute that is absent or unreadable is unknown."""
    day, instance_uid = _study_day(ds), identifier(ds, "SOPInstanceUID")
    return Header(
        instance_uid=instance_uid,
        study_uid=identifier(ds, "StudyInstanceUID"),
        series_uid=identifier(ds, "SeriesInstanceUID"),
        accession=identifier(ds, "AccessionNumber"),
        patient_id=identifier(ds, "PatientID"),
        issuer=identifier(ds, "IssuerOfPatientID"),
        # without the UID, which is against the standard, its bytes are what it is known by, as in every version
        content="" if instance_uid else hashlib.sha256(content).hexdigest(),
        label=_label(ds, label_keyword, separator) if label_keyword else None,
        position=_position(ds),
        sex=_sex(ds),
        age=_age(ds, day),
        study_year=int(day[:4]) if day else None,
        device=_device(ds),
    )


def _label(ds: Dataset, keyword: str, separator: str) -> str | None:
    """Return the attribute's text, the values of a multi-valued one joined; None if it is absent or empty."""
    try:
        value = ds.get(keyword)
        if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__iter__"):
            return separator.join(str(part) for part in value)[:1024] or None
    except Exception:  # noqa: BLE001  (pydicom raises whatever a converter raises)
        return None
    return text(ds, keyword) or None


_LATERAL_POSITIONS = {"LL", "RL", "LLD", "RLD", "LATERAL", "LAT", "LLAT", "RLAT"}
_VIEW_CODES = {  # CID 4010: SNOMED CT, and the SNOMED RT codes of older devices
    "399348003": ViewPosition.AP,
    "272479007": ViewPosition.PA,
    "399067008": ViewPosition.LATERAL,
    "399173006": ViewPosition.LATERAL,
    "399198007": ViewPosition.LATERAL,
    "R-10206": ViewPosition.AP,
    "R-10214": ViewPosition.PA,
    "R-40888": ViewPosition.PA,
    "R-102CD": ViewPosition.LATERAL,
    "R-10232": ViewPosition.LATERAL,
    "R-10236": ViewPosition.LATERAL,
}


def _position(ds: Dataset) -> ViewPosition:
    position = word(ds, "ViewPosition")
    if position in {"AP", "PA"}:
        return ViewPosition(position)
    if position in _LATERAL_POSITIONS:
        return ViewPosition.LATERAL
    code = item(ds, "ViewCodeSequence")
    return ViewPosition.UNKNOWN if code is None else _VIEW_CODES.get(text(code, "CodeValue"), ViewPosition.UNKNOWN)


def _sex(ds: Dataset) -> Sex:
    sex = word(ds, "PatientSex")[:1]
    return Sex(sex) if sex in {"F", "M", "O"} else Sex.UNKNOWN


_DAY = re.compile(r"(1[89]|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")
_PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12, "Y": 1, "": 1}


def _study_day(ds: Dataset) -> str:
    days = (text(ds, keyword).replace(".", "") for keyword in ("StudyDate", "AcquisitionDate", "ContentDate"))
    return next((day for day in days if _DAY.fullmatch(day)), "")


def _age(ds: Dataset, day: str) -> int | None:
    """Return whole years from Patient's Age, else from the birth date and the study's day; None if implausible."""
    stated = _AGE.fullmatch(word(ds, "PatientAge"))
    born = text(ds, "PatientBirthDate").replace(".", "")
    if stated:
        age = int(int(stated[1]) / _PER_YEAR[stated[2]])
    elif day and _DAY.fullmatch(born):
        age = int(day[:4]) - int(born[:4]) - (day[4:] < born[4:])
    else:
        return None
    return age if 0 <= age <= 125 else None


def _device(ds: Dataset) -> str:
    """Return manufacturer and model; never a serial number or a station's name, which name a room in a hospital."""
    parts = (text(ds, "Manufacturer"), text(ds, "ManufacturerModelName"))
    plain = re.sub(r"[^\w.,/()+-]+|\S*\d{5}\S*", " ", " ".join(part for part in parts if part))
    return plain[:64].strip()
