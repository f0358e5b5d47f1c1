"""Keyed names for UIDs and Patient IDs: the same in every file of a silo, nothing without its key (PS3.15 E.1.1, U and D).

A name carries a mark that only the key's owner can make, so that de-identifying twice equals once. Nobody else can have
a value left as it is by claiming in the file that it was de-identified before.
"""

from dataclasses import dataclass

from pydicom.config import IGNORE
from pydicom.uid import UID

from silo_app.catalogue import SiloKey

__all__ = ["Names"]

_UUID_ROOT = "2.25."  # UIDs made of 128 random-looking bits (PS3.5 B.2)
_NAME_DIGITS = 24  # 96 bits: a billion names have no two alike but with a chance of 1 in 10^11
_MARK_DIGITS = 8
_PATIENT = "SILO"


@dataclass(frozen=True, slots=True)
class Names:
    """Makes names with one silo's key."""

    key: SiloKey

    def uid(self, value: str) -> str:
        """Return the name of a UID, "2.25.<128 bits>"; one that the standard registers, or that is ours, stays."""
        value = value.strip(" \0")
        if not value or UID(value, IGNORE).name != value or self._is_own_uid(value):
            return value
        return _UUID_ROOT + str(int(self._marked("deid-uid", value), 16))

    def patient(self, patient_id: str, issuer: str = "") -> str:
        """Return the name of a patient, "SILO" and 32 digits; "" for none."""
        patient_id = patient_id.strip(" \0")
        head, digits = patient_id[: len(_PATIENT)], patient_id[len(_PATIENT) :].lower()
        if not patient_id or (head == _PATIENT and self._is_marked("deid-patient", digits)):
            return patient_id
        return _PATIENT + self._marked("deid-patient", patient_id, issuer).upper()

    def _is_own_uid(self, value: str) -> bool:
        number = value.removeprefix(_UUID_ROOT)
        if number == value or not (number.isascii() and number.isdigit() and len(number) < 40):
            return False
        return self._is_marked("deid-uid", f"{int(number):032x}")

    def _marked(self, kind: str, *parts: str) -> str:
        name = self.key.name(kind, *parts)[:_NAME_DIGITS]
        return name + self._mark(kind, name)

    def _mark(self, kind: str, name: str) -> str:
        return self.key.name(f"{kind}-mark", name)[:_MARK_DIGITS]

    def _is_marked(self, kind: str, digits: str) -> bool:
        name, mark = digits[:_NAME_DIGITS], digits[_NAME_DIGITS:]
        return bool(name) and self._mark(kind, name) == mark
