"""Writes a batch of one set's images; runs in a process of its own, and no image can stop it."""

from dataclasses import dataclass
from pathlib import Path

from silo_app.errors import ImageUnsupported
from silo_app.imaging.samples.archive import DICOM
from silo_app.imaging.samples.hospitals import hospital_name
from silo_app.imaging.samples.image_file import write_image
from silo_app.imaging.samples.image_plan import Item
from silo_app.imaging.samples.image_set import LARGEST_IMAGE, UNREADABLE, Opened, opened
from silo_app.imaging.samples.records import Skipped


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one set to write under `out`."""

    source: Path
    name: str
    out: Path
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch."""

    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]


def write_batch(batch: Batch) -> Written:
    """Write every image of a batch that can be used, and say which could not."""
    written, skipped = [], []
    with opened(batch.source) as content:
        for item in batch.items:
            reason = _write(item, content, batch)
            if reason is None:
                written.append(item)
            else:
                skipped.append(Skipped(batch.name, item.record.file, reason))
    return Written(tuple(written), tuple(skipped))


def _write(item: Item, content: Opened, batch: Batch) -> str | None:
    """Write one image; return why not, if not."""
    name = item.record.file
    if content.sizes.get(name, 0) > LARGEST_IMAGE:
        return f"larger than {LARGEST_IMAGE} bytes"
    try:
        data = content.read(name, LARGEST_IMAGE + 1)
    except (*UNREADABLE, KeyError):
        return "cannot be read"
    if len(data) > LARGEST_IMAGE:
        return f"larger than {LARGEST_IMAGE} bytes"
    file = batch.out / hospital_name(item.hospital) / DICOM / item.file
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_image(data, item.record, item.identity, f"{batch.name}/{name}", file)
    except ImageUnsupported as error:
        return error.problem
    return None
