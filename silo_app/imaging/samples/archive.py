"""A hospital's sample archive on disk: DICOM files, labels, and `archive.json` which says what they are.

OUT/recipe.json              what was asked for; the same again changes nothing
OUT/<hospital>/archive.json  name, counts, how to read the labels
OUT/<hospital>/labels.csv    study_instance_uid,findings
OUT/<hospital>/dicom/**.dcm
"""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from silo_app.cases import Finding
from silo_app.config import CsvLabels
from silo_app.durable import SHARED, sync_folder, write_text
from silo_app.errors import SampleInvalid

ARCHIVE, LABELS, DICOM, RECIPE = "archive.json", "labels.csv", "dicom", "recipe.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One hospital's archive, as its `archive.json` says."""

    path: Path
    """The folder of `archive.json`."""
    name: str
    display_name: str
    synthetic: bool
    patients: int
    studies: int
    images: int
    labels: CsvLabels
    """How to read the labels; its path is relative to `path`."""

    @property
    def dicom(self) -> Path:
        """The folder of DICOM files."""
        return self.path / DICOM

    def silo(self) -> dict[str, Any]:
        """Return what consortium.yaml says of a silo that takes this archive in: its names, `sources` and `labels`."""
        folder = self.path.resolve()
        return {
            "name": self.name,
            "display_name": self.display_name,
            "sources": [{"kind": "folder", "path": str(folder / DICOM)}],
            "labels": self.labels.model_dump(mode="json") | {"path": str(folder / self.labels.path)},
        }


def read_archive(path: Path) -> Archive:
    """Read the archive in the folder `path` (or whose `archive.json` is `path`). Raises `SampleInvalid`."""
    file = path if path.name == ARCHIVE else path / ARCHIVE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        labels = CsvLabels.model_validate(content.pop("labels"))
        return Archive(path=file.parent, labels=labels, **content)
    except FileNotFoundError:
        problem = f"there is no {ARCHIVE} here"
    except (ValueError, TypeError, KeyError, AttributeError, ValidationError) as error:
        problem = f"{ARCHIVE} is not what `silo sample` writes ({type(error).__name__})"
    raise SampleInvalid(
        problem,
        where=str(file.parent),
        remedy="Make the archive again with `silo sample phantom` or `silo sample import`.",
    )


def read_archives(out: Path) -> list[Archive]:
    """Return all archives that one `silo sample` command wrote into `out`, sorted by name."""
    return [read_archive(file) for file in sorted(out.glob(f"*/{ARCHIVE}"))]


def write_archive(archive: Archive, labels: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Write labels (study UID, findings) and `archive.json` beside the DICOM files that are already there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([archive.labels.key_column, archive.labels.findings_column])
    writer.writerows((study, archive.labels.separator.join(findings)) for study, findings in labels)
    write_text(archive.path / LABELS, text.getvalue(), mode=SHARED)
    content = {field: getattr(archive, field) for field in ("name", "display_name", "synthetic")}
    content |= {field: getattr(archive, field) for field in ("patients", "studies", "images")}
    content["labels"] = archive.labels.model_dump(mode="json")
    write_text(archive.path / ARCHIVE, json.dumps(content, indent=2) + "\n", mode=SHARED)


def labels_in(scope: Sequence[Finding]) -> CsvLabels:
    """Return how the labels of every archive are read: findings of `scope` by study."""
    return CsvLabels(path=Path(LABELS), scope=tuple(scope))


def unchanged(out: Path, recipe: Mapping[str, Any]) -> list[Archive] | None:
    """Return the archives in `out` if they are what `recipe` makes, None if there is nothing yet.

    Raises `SampleInvalid` if `out` holds anything else, which is left as it is.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if out.is_dir() and _read_recipe(out) == recipe:
        archives = read_archives(out)
        if archives and all(sum(1 for _ in a.dicom.rglob("*.dcm")) == a.images for a in archives):
            return archives
        problem = "an archive was made here, but files of it are missing"
    else:
        problem = "there is something else here already, and nothing is overwritten"
    raise SampleInvalid(problem, where=str(out), remedy="Name a new folder, or remove this one.")


@contextmanager
def publishing(out: Path, recipe: Mapping[str, Any]) -> Iterator[Path]:
    """Give a temporary folder beside `out` that becomes `out` when the block ends, and is removed when it raises."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        yield part
        write_text(part / RECIPE, json.dumps(recipe, indent=2) + "\n", mode=SHARED)
        part.chmod(0o755)
        part.replace(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_folder(out.parent)


def _read_recipe(out: Path) -> Any:
    try:
        return json.loads((out / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
