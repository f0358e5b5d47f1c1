"""A dataset under the Basic Application Level Confidentiality Profile (PS3.15 E.2), recorded in it as E.1.1 asks."""

from collections.abc import Callable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from silo_app.imaging.attributes import identifier
from silo_app.imaging.deidentify.names import Names
from silo_app.imaging.deidentify.rules import TABLE, Action, action_for
from silo_app.imaging.parse import quiet

__all__ = ["METHOD", "Seen", "deidentify"]

METHOD = f"Siloscope, PS3.15 E.2 Basic Profile {TABLE.removeprefix('dicomfields_')}, keyed UIDs, overlays removed"
_PROFILE_CODE = ("113100", "DCM", "Basic Application Confidentiality Profile")  # PS3.16 CID 7050
_DEEPEST = 16
"""Sequences within sequences that are entered; radiographs have three, a hostile file has thousands."""

Seen = Callable[[tuple[BaseTag, ...], Action], None]
"""Told of each attribute (its tag, after those of the sequences around it) and what was done with it."""


@quiet()
def deidentify(ds: Dataset, names: Names, seen: Seen | None = None) -> None:
    """Take the patient out of `ds`, in place; pixels are left as they are (`export.rewritten` makes those anew).

    Deterministic for a key, idempotent, and closed: an attribute that cannot be read or is not understood is removed.
    """
    _clean(ds, names, identifier(ds, "IssuerOfPatientID"), (), seen or (lambda _path, _action: None))
    _record(ds)


def _clean(ds: Dataset, names: Names, issuer: str, path: tuple[BaseTag, ...], seen: Seen) -> None:
    for tag in list(ds.keys()):
        try:
            action = _treat(ds, tag, names, issuer, path, seen)
        except Exception:  # noqa: BLE001  (a converter raises anything for hostile bytes; what it cannot read must go)
            action = Action.REMOVED
        if action is Action.REMOVED and tag in ds:
            del ds[tag]
        seen((*path, tag), action)


def _treat(ds: Dataset, tag: BaseTag, names: Names, issuer: str, path: tuple[BaseTag, ...], seen: Seen) -> Action:
    element = ds[tag]
    action, rule = action_for(element)
    if rule is not None:
        rule(ds, (tag.group, tag.element))
    elif action is Action.NAMED:
        named = names.uid if element.VR == "UI" else (lambda value: names.patient(value, issuer))
        values = list(element.value) if element.VM > 1 else [element.value]
        renamed = [named(str(value or "")) for value in values]
        element.value = renamed if element.VM > 1 else renamed[0]
        if renamed == [str(value or "") for value in values]:
            return Action.KEPT  # a UID of the standard
    elif action is Action.EMPTIED:
        element.value = Sequence()
    elif action is Action.ENTERED:
        if len(path) >= _DEEPEST:
            return Action.REMOVED
        for item in element.value:
            _clean(item, names, issuer, (*path, tag), seen)
    return action


def _record(ds: Dataset) -> None:
    """Say in the file what was done (PS3.3 C.7.1.1: (0012,0062) to (0012,0064), (0028,0303))."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _PROFILE_CODE
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = [METHOD[start : start + 64] for start in range(0, len(METHOD), 64)]
    ds.DeidentificationMethodCodeSequence = Sequence([code])
    ds.LongitudinalTemporalInformationModified = "REMOVED"
