"""A label file, read and checked: what each of its keys says, and what was odd about it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from silo_app.catalogue.records import Label, Origin
from silo_app.catalogue.writing import Identity

__all__ = ["Issue", "Key", "LabelTable", "image_name"]


class Key(NamedTuple):
    """What a row names: `value` is an identifier of this kind."""

    kind: str
    """file, image, folder, sop_instance_uid, study_instance_uid, accession_number or patient_id."""
    value: str


@dataclass(frozen=True, slots=True, order=True)
class Issue:
    """Something in a label file that is not as it should be; no text of a report is quoted."""

    line: int
    column: str
    problem: str
    fatal: bool = False
    """Whether the file cannot be used as it is."""

    def __str__(self) -> str:
        """Return "line 7, column x: problem"."""
        place = f"line {self.line}" if self.line else ""
        column = f"column {self.column}" if self.column else ""
        where = ", ".join(part for part in (place, column) if part)
        return f"{where}: {self.problem}" if where else self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """What the keys of a label file say."""

    path: Path
    origin: Origin
    keyed_by: str
    """What its keys are, for people: "column image_id, taken as file"."""
    keys: Mapping[Key, tuple[Label, ...]]
    parts: int = 1
    """For keys of kind `image`: of how many last parts of a path the name consists."""
    rows: int = 0
    unmapped: Counter[str] = field(default_factory=Counter)
    """Words that nobody mapped."""
    outside: Counter[str] = field(default_factory=Counter)
    """Words that are known, and have no name in the shared vocabulary."""
    issues: tuple[Issue, ...] = ()
    """The first of them: of a file that is odd everywhere they tell enough."""
    issue_count: int = 0
    """How many there are, if not all of them are kept."""

    def matched(
        self, views: Iterable[Identity], name: Callable[[str, str], str]
    ) -> tuple[dict[str, tuple[Label, ...]], int]:
        """Return the labels by view (digest), and how many keys of the file name no view.

        `name(kind, value)` gives the keyed pseudonym that the catalogue has of an identifier. Where several keys name
        a view, the most precise one counts: the image, then the study, then the patient.
        """
        views = list(views)
        found: dict[str, Key] = {}
        for kind in sorted({key.kind for key in self.keys}, key=_PRECISION.index):
            for digest, key in self._of_kind(kind, views, name):
                found.setdefault(digest, key)
        return {digest: self.keys[key] for digest, key in found.items()}, len(self.keys) - len(set(found.values()))

    def _of_kind(self, kind: str, views: Sequence[Identity], name: Callable[[str, str], str]) -> Iterable[tuple[str, Key]]:
        if kind in _PATHS:
            return _PATHS[kind](views, self.keys, self.parts)
        spoken, attribute = _NAMES[kind]
        named = {name(spoken, key.value): key for key in self.keys if key.kind == kind}
        return [(v.digest, named[getattr(v, attribute)]) for v in views if getattr(v, attribute) in named]


def image_name(path: str, parts: int) -> str:
    """Return the last parts of a path without the file's extension, "" if it has fewer; folders of both kinds of slash."""
    pieces = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join((*pieces[-parts:-1], PurePosixPath(pieces[-1]).stem)) if len(pieces) >= parts > 0 else ""


_PRECISION = ("sop_instance_uid", "file", "image", "folder", "study_instance_uid", "accession_number", "patient_id")
_NAMES = {
    "sop_instance_uid": ("instance", "instance"),
    "study_instance_uid": ("study-uid", "study_uid"),
    "accession_number": ("accession", "accession"),
    "patient_id": ("patient-id", "patient_id"),
}

Matches = Iterable[tuple[str, Key]]
Keys = Mapping[Key, tuple[Label, ...]]


def _by_file(views: Sequence[Identity], keys: Keys, _parts: int) -> Matches:
    """Match by the path within the source; by the bare name only where one file alone has it."""
    names = Counter(PurePosixPath(path).name for view in views for path in view.paths)
    for view in views:
        bare = [PurePosixPath(path).name for path in view.paths]
        candidates = [*view.paths, *(name for name in bare if names[name] == bare.count(name))]
        yield from ((view.digest, key) for name in candidates if (key := Key("file", name)) in keys)


def _by_image(views: Sequence[Identity], keys: Keys, parts: int) -> Matches:
    """Match by the last parts of the path, whatever the extension; a name that two images share names neither."""
    named = [(view.digest, {image_name(path, parts) for path in view.paths}) for view in views]
    shared = Counter(name for _, names in named for name in names)
    for digest, names in named:
        yield from ((digest, key) for name in sorted(names) if shared[name] == 1 and (key := Key("image", name)) in keys)


def _by_folder(views: Sequence[Identity], keys: Keys, _parts: int) -> Matches:
    """Match by the name of any folder in which the file lies."""
    for view in views:
        folders = {part for path in view.paths for part in PurePosixPath(path).parts[:-1]}
        yield from ((view.digest, key) for folder in sorted(folders) if (key := Key("folder", folder)) in keys)


_PATHS: Mapping[str, Callable[[Sequence[Identity], Keys, int], Matches]] = {
    "file": _by_file,
    "image": _by_image,
    "folder": _by_folder,
}
