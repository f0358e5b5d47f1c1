"""Findings from what a hospital already has: a CSV, or a DICOM attribute; local words become the shared vocabulary.

A finding that nobody looked for is unknown, not absent: only the `scope` of the configuration makes an absence.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from silo_app.cases import Finding
from silo_app.catalogue.records import Label
from silo_app.catalogue.writing import Identity
from silo_app.config import CsvLabels, TagLabels
from silo_app.errors import LabelsInvalid

__all__ = ["LabelTable", "Vocabulary", "read_csv"]

MAX_UNMAPPED = 1000
"""Different unmapped words that are remembered; a free-text column has no end of them."""


@dataclass(slots=True)
class Vocabulary:
    """Maps local words to findings, and counts those it does not know."""

    settings: CsvLabels | TagLabels
    unmapped: Counter[str] = field(default_factory=Counter)
    _known: dict[str, Finding] = field(init=False)

    @property
    def source(self) -> str:
        """What a label's provenance names: the file's column, or the attribute."""
        if isinstance(self.settings, CsvLabels):
            return f"{self.settings.path.name}:{self.settings.findings_column}"
        return self.settings.keyword

    def __post_init__(self) -> None:
        """Prepare the look-up; a mapping of the configuration goes before the vocabulary's own names."""
        self._known = {_folded(finding.value): finding for finding in Finding}
        self._known |= {_folded(word): finding for word, finding in self.settings.mapping.items()}

    def labels(self, text: str, *, scope_needs_word: bool = False) -> tuple[Label, ...]:
        """Return what a cell of words says.

        A word that is mapped is present; what is in the scope and not named is absent. "No Finding" beside another
        finding is overruled by it. With `scope_needs_word`, a text of which no word is known says nothing at all.
        """
        words = [word.strip() for word in text.split(self.settings.separator) if word.strip()]
        named = {self._known[_folded(word)]: word for word in words if _folded(word) in self._known}
        for word in words:
            if _folded(word) not in self._known and (word in self.unmapped or len(self.unmapped) < MAX_UNMAPPED):
                self.unmapped[word] += 1
        if len(named) > 1:
            named.pop(Finding.NO_FINDING, None)
        if scope_needs_word and not named:
            return ()
        present = [Label(finding=finding, present=True, source=self.source, term=named[finding]) for finding in named]
        absent = [
            Label(finding=finding, present=False, source=self.source)
            for finding in self.settings.scope
            if finding not in named
        ]
        return tuple(sorted({label.finding: label for label in [*absent, *present]}.values(), key=lambda x: x.finding))


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A label file, read and checked: what each of its keys says."""

    settings: CsvLabels
    path: Path
    rows: dict[str, tuple[Label, ...]]
    """By the key column's value."""
    unmapped: Counter[str]

    def matched(
        self, views: Iterable[Identity], name: Callable[[str, str], str]
    ) -> tuple[dict[str, tuple[Label, ...]], int]:
        """Return the labels by view (digest), and how many keys of the file name no view.

        `name(kind, value)` gives the keyed pseudonym that the catalogue has of an identifier.
        """
        views = list(views)
        if self.settings.key == "file":
            found = _by_file(views, self.rows)
        else:
            kind, attribute = _KINDS[self.settings.key]
            named = {name(kind, key): key for key in self.rows}
            found = {v.digest: named[getattr(v, attribute)] for v in views if getattr(v, attribute) in named}
        return {digest: self.rows[key] for digest, key in found.items()}, len(self.rows) - len(set(found.values()))


_KINDS = {
    "sop_instance_uid": ("instance", "instance"),
    "study_instance_uid": ("study-uid", "study_uid"),
    "accession_number": ("accession", "accession"),
    "patient_id": ("patient-id", "patient_id"),
}


def _by_file(views: Sequence[Identity], rows: dict[str, tuple[Label, ...]]) -> dict[str, str]:
    """Match by the path within the source; by the bare name only where one file alone has it."""
    names = Counter(PurePosixPath(path).name for view in views for path in view.paths)
    found = {}
    for view in views:
        bare = [PurePosixPath(path).name for path in view.paths]
        candidates = [*view.paths, *(name for name in bare if names[name] == bare.count(name))]
        for key in candidates:
            if key in rows:
                found[view.digest] = key
                break
    return found


def read_csv(settings: CsvLabels, path: Path) -> LabelTable:
    """Read a label file. Raises `LabelsInvalid` naming the file, what is wrong and what was found instead."""
    vocabulary = Vocabulary(settings)
    rows: dict[str, tuple[str, int]] = {}
    for number, key, findings in _lines(settings, path):
        known, first = rows.setdefault(key, (findings, number))
        if _words(known, settings) != _words(findings, settings):
            raise LabelsInvalid(
                f"lines {first} and {number} have one {settings.key_column} and different {settings.findings_column}",
                where=str(path),
                remedy="Keep one line for each key, with all its findings.",
            )
    if not rows:
        raise LabelsInvalid("the file has no line with a key", where=str(path), remedy="Give a CSV with labels.")
    labels = {key: vocabulary.labels(findings) for key, (findings, _) in rows.items()}
    return LabelTable(settings=settings, path=path, rows=labels, unmapped=vocabulary.unmapped)


def _lines(settings: CsvLabels, path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, key, findings) of each row that has a key."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(settings, path, reader.fieldnames or [])
            for row in reader:
                key = (row[settings.key_column] or "").strip()
                if key:
                    yield reader.line_num, key, row[settings.findings_column] or ""
    except OSError as error:
        raise LabelsInvalid(
            f"the label file cannot be read ({error.strerror or type(error).__name__})",
            where=str(path),
            remedy="Name an existing CSV file with --labels, or under `labels` in local/silo.yaml.",
        ) from None
    except UnicodeDecodeError:
        raise LabelsInvalid("the label file is not UTF-8", where=str(path), remedy="Save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise LabelsInvalid(f"this is not a CSV file: {error}", where=str(path), remedy="Save it as CSV.") from None


def _check_columns(settings: CsvLabels, path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in (settings.key_column, settings.findings_column) if name not in columns]
    if missing:
        shown = ", ".join(column[:40] for column in list(columns)[:20]) or "none"
        raise LabelsInvalid(
            f"there is no column {' and no column '.join(missing)}; the columns are: {shown}",
            where=str(path),
            remedy="Correct `key_column` and `findings_column` of `labels` in local/silo.yaml, or the header line.",
        )


def _words(text: str, settings: CsvLabels) -> frozenset[str]:
    return frozenset(_folded(word) for word in text.split(settings.separator) if word.strip())


def _folded(word: str) -> str:
    return " ".join(word.replace("_", " ").casefold().split())
