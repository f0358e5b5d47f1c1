"""What would remain of files after de-identification, counted: evidence that a privacy officer can read and question.

Values are shown as shapes ("Aaaaa 999"), since an example of a value that identifies is a leak itself.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from silo_app.errors import ImageUnsupported
from silo_app.imaging.burned_in import check_burned_in
from silo_app.imaging.content import read_bytes
from silo_app.imaging.deidentify.export import deidentified
from silo_app.imaging.deidentify.names import Names
from silo_app.imaging.deidentify.rules import Action
from silo_app.imaging.parse import dataset_of, quiet

__all__ = ["Evidence", "Remaining", "examine", "shape"]

_EXAMPLES = 3
_SHOWN = 32


@dataclass(slots=True)
class Remaining:
    """One attribute that is still there, over all files."""

    files: int = 0
    examples: list[str] = field(default_factory=list)
    """Different shapes (or values) of it, at most three."""


@dataclass(slots=True)
class Evidence:
    """What the rules did to so many files, and what they left."""

    files: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason; nothing of these files would be used."""
    actions: Counter[str] = field(default_factory=Counter)
    """Attributes by what was done with them."""
    removed: Counter[str] = field(default_factory=Counter)
    """Files by the attribute that was removed, emptied, replaced or named, "what: attribute"."""
    burned_in: Counter[str] = field(default_factory=Counter)
    """Files by why their picture seems to name the patient; "" where nothing says so."""
    remaining: dict[str, Remaining] = field(default_factory=dict)
    """By attribute, after those of the sequences around it."""

    def as_data(self) -> dict[str, Any]:
        """Return it as plain values, the most frequent first."""
        counters = ("refused", "actions", "burned_in", "removed")
        counts = {name: dict(getattr(self, name).most_common()) for name in counters}
        remaining = {name: {"files": found.files, "examples": found.examples} for name, found in self.remaining.items()}
        return {"files": self.files, "taken": self.taken, **counts, "remaining": remaining}


def examine(files: Iterable[Path], names: Names, *, ocr: bool, show_values: bool = False) -> Evidence:
    """De-identify every file in memory and count; nothing is written."""
    evidence = Evidence()
    for file in files:
        evidence.files += 1
        try:
            _examine(read_bytes(file), names, evidence, ocr=ocr, show_values=show_values)
        except ImageUnsupported as error:
            evidence.refused[error.reason] += 1
    evidence.remaining = dict(sorted(evidence.remaining.items()))
    return evidence


def _examine(content: bytes, names: Names, evidence: Evidence, *, ocr: bool, show_values: bool) -> None:
    done: list[tuple[tuple[BaseTag, ...], Action]] = []
    after = deidentified(content, names, lambda path, action: done.append((path, action)))
    evidence.taken += 1
    evidence.burned_in[check_burned_in(dataset_of(content), ocr=ocr)] += 1
    evidence.actions.update(action.value for _, action in done)
    kinds = {(action.value, _named(path)) for path, action in done if action not in {Action.KEPT, Action.ENTERED}}
    evidence.removed.update(f"{action}: {name}" for action, name in kinds)
    _count(after, (), evidence, set(), show_values=show_values)


@quiet()
def _count(ds: Dataset, path: tuple[BaseTag, ...], evidence: Evidence, seen: set[str], *, show_values: bool) -> None:
    for element in ds:
        name = _named((*path, element.tag))
        if element.VR == "SQ":
            for item in element.value:
                _count(item, (*path, element.tag), evidence, seen, show_values=show_values)
            continue
        found = evidence.remaining.setdefault(name, Remaining())
        found.files += name not in seen
        seen.add(name)
        example = str(element.value)[:_SHOWN] if show_values and not _is_bytes(element) else shape(element)
        if example not in found.examples and len(found.examples) < _EXAMPLES:
            found.examples.append(example)


def shape(element: DataElement) -> str:
    """Return what a value looks like, without a letter or digit of it."""
    if _is_bytes(element):
        return f"{len(element.value)} bytes" if isinstance(element.value, bytes) else element.VR
    if element.VR == "UI":
        return "UID of the standard" if UID(str(element.value)).name != str(element.value) else "UID named by key"
    if element.is_empty:
        return "(empty)"
    text = str(element.value)[:_SHOWN]
    return re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", re.sub(r"\d", "9", text))


def _is_bytes(element: DataElement) -> bool:
    return isinstance(element.value, bytes) or element.VR.startswith("O")


def _named(path: tuple[BaseTag, ...]) -> str:
    return " > ".join(keyword_for_tag(tag) or _anonymous(tag) for tag in path)


def _anonymous(tag: BaseTag) -> str:
    """Return what is told of an attribute without a name: private ones together, overlays by group."""
    if tag.is_private:
        return "(private)"
    return f"({tag.group:04X},{tag.element:04X})"
