"""Label files of any kind -> one table."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from silo_app.catalogue.records import Label, Origin
from silo_app.config import CsvLabels, FhirLabels, PresetLabels, SrLabels
from silo_app.errors import LabelsInvalid
from silo_app.imaging.labels.csv_file import read_csv, rows_of
from silo_app.imaging.labels.layout import layout_of
from silo_app.imaging.labels.presets import preset_layout
from silo_app.imaging.labels.table import Issue, Key, LabelTable

__all__ = ["LabelSettings", "read_labels"]

LabelSettings = CsvLabels | PresetLabels | FhirLabels | SrLabels
MAX_FILE_BYTES = 2 << 30
_SHOWN_ISSUES = 10


def read_labels(settings: LabelSettings, path: Path, *, images: Path | None = None, lenient: bool = False) -> LabelTable:
    """Read labels; `path` and `images` are the settings' own, made absolute.

    Raises `LabelsInvalid` naming the file, what is wrong and what was found instead. What is wrong with single lines
    raises too, unless `lenient`: then the table holds it as issues.
    """
    table = _read(settings, path, images)
    wrong = [issue for issue in table.issues if issue.fatal]
    if wrong and not lenient:
        more = f"\nand {len(wrong) - _SHOWN_ISSUES} more" if len(wrong) > _SHOWN_ISSUES else ""
        raise LabelsInvalid(
            "\n".join(str(issue) for issue in wrong[:_SHOWN_ISSUES]) + more,
            where=str(path),
            remedy="Correct these lines: one line for each key, with all its findings. `silo labels check` lists them all.",
        )
    return table


def _read(settings: LabelSettings, path: Path, images: Path | None) -> LabelTable:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(settings, SrLabels):
        from silo_app.imaging.labels.sr import read_sr

        return read_sr(settings, path, since)
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    origin = Origin(source=path.name, preset=settings.kind, digest=digest, since=since)
    if isinstance(settings, FhirLabels):
        from silo_app.imaging.labels.fhir import read_fhir

        return read_fhir(settings, path, content, replace(origin, preset="fhir/1"))
    layout = preset_layout(settings) if isinstance(settings, PresetLabels) else layout_of(settings)
    table = read_csv(layout, path, content, replace(origin, preset=layout.name))
    return table if images is None else _by_image(table, images)


def _by_image(table: LabelTable, images: Path) -> LabelTable:
    """Give each study's labels to its images, as a metadata file joins them (MIMIC-CXR: dicom_id, study_id)."""
    layout = replace(preset_layout(PresetLabels(preset="mimic", path=images)), value_columns={})
    keys: dict[Key, tuple[Label, ...]] = {}
    unknown = 0
    for _line, row in rows_of(images, _content(images), layout, ("dicom_id", "study_id")):
        image, study = (row["dicom_id"] or "").strip(), (row["study_id"] or "").strip()
        if image and (known := table.keys.get(Key("folder", layout.key_prefix + study))) is not None:
            keys[Key("image", image)] = known
        else:
            unknown += 1
    issues = (Issue(0, "", f"{unknown} images in {images.name} are of a study that has no labels"),) if unknown else ()
    return replace(
        table,
        keys=keys,
        keyed_by=f"columns dicom_id and study_id of {images.name}",
        issues=(*table.issues, *issues),
    )


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LabelsInvalid("the label file is larger than 2 GB", where=str(path), remedy="Split it.")
        return path.read_bytes()
    except OSError as error:
        raise LabelsInvalid(
            f"the label file cannot be read ({error.strerror or type(error).__name__})",
            where=str(path),
            remedy="Name an existing file with --labels, or under `labels` in local/silo.yaml.",
        ) from None


def counted(labels: Mapping[Key, tuple[Label, ...]]) -> dict[str, dict[str, int]]:
    """Return by finding how many keys say present and absent."""
    counts: dict[str, dict[str, int]] = {}
    for known in labels.values():
        for label in known:
            one = counts.setdefault(label.finding.value, {"present": 0, "absent": 0})
            one["present" if label.present else "absent"] += 1
    return dict(sorted(counts.items()))
