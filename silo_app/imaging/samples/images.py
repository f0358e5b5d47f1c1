"""Turns sets of images with a CSV into hospitals' DICOM archives, divided by patient."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from silo_app.cases import Finding
from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.archive import (
    Archive,
    labels_in,
    publishing,
    read_archives,
    unchanged,
    write_archive,
)
from silo_app.imaging.samples.hospitals import display_name, hospital_name
from silo_app.imaging.samples.image_batch import Batch, Written, write_batch
from silo_app.imaging.samples.image_plan import Item, hospital_counts, items, limited, place, scopes
from silo_app.imaging.samples.image_set import ImageSet, fingerprint, opened
from silo_app.imaging.samples.leftovers import write_leftovers
from silo_app.imaging.samples.pool import spread
from silo_app.imaging.samples.records import Listing, Skipped, read_records

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and what is being done."""

VERSION = 1
"""Of the archives: another version makes other files from the same sets."""
BATCH = 48  # images a task


def import_images(
    sets: Sequence[ImageSet],
    out: Path,
    *,
    hospitals: int | Sequence[int] = 3,
    alpha: float = 1.0,
    separate: bool = False,
    seed: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
    workers: int = 1,
) -> list[Archive]:
    """Write the images of `sets` as DICOM archives of hospitals into the new folder `out`, and return them.

    Patients are divided by a Dirichlet draw over labels (`partition.dirichlet`). `separate` makes every set hospitals
    of its own; `hospitals` then counts for each set. `limit` takes so many images of each set. What could not be used
    is listed beside the archives, see `leftovers`. Raises `SampleInvalid` and `LabelsInvalid`.
    """
    counts = hospital_counts(len(sets), hospitals, separate=separate, alpha=alpha)
    recipe = _recipe(sets, {"hospitals": counts, "alpha": alpha, "seed": seed, "limit": limit})
    if (archives := unchanged(out, recipe)) is not None:
        return archives
    listings = [limited(_listing(one, number), limit, seed) for number, one in enumerate(sets)]
    plan = items(listings, [one.name for one in sets], place(listings, counts, alpha, seed))
    with publishing(out, recipe) as part:
        done = _write_all(part, sets, plan, progress, workers)
        skipped = [one for listing in listings for one in listing.skipped] + [s for w in done for s in w.skipped]
        write_leftovers(part, skipped, _unmapped(listings))
        for index, scope in enumerate(scopes(listings, counts)):
            mine = sorted((i for w in done for i in w.items if i.hospital == index), key=lambda item: item.file)
            _finish(part, index, mine, scope, skipped)
    return read_archives(out)


def _listing(one: ImageSet, number: int) -> Listing:
    with opened(one.path) as content:
        return read_records(one, number, content)


def _unmapped(listings: Sequence[Listing]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for listing in listings:
        counts.update(listing.unmapped)
    return dict(counts)


def _recipe(sets: Sequence[ImageSet], options: dict[str, Any]) -> dict[str, Any]:
    described = []
    for one in sets:
        with opened(one.path):  # says what is wrong with it, if anything is
            described.append(
                {"name": one.name, "content": fingerprint(one.path), "csv": one.csv, "columns": _plain(one.columns)}
            )
    return {"kind": "import", "version": VERSION, "sets": described, **options}


def _plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said about columns as JSON has it, so that it compares equal when read again."""
    return json.loads(json.dumps(dict(columns)))  # type: ignore[no-any-return]


def _write_all(
    part: Path, sets: Sequence[ImageSet], plan: Sequence[Item], progress: Progress | None, workers: int
) -> list[Written]:
    batches: list[Batch] = []
    for number, one in enumerate(sets):
        mine = [item for item in plan if item.record.set == number]
        chunks = (tuple(mine[start : start + BATCH]) for start in range(0, len(mine), BATCH))
        batches.extend(Batch(one.path.resolve(), one.name, part, chunk) for chunk in chunks)
    done: list[Written] = []
    for written in spread(write_batch, batches, workers):
        done.append(written)
        if progress is not None:
            progress(sum(len(w.items) + len(w.skipped) for w in done), len(plan), "images")
    return done


def _finish(part: Path, index: int, written: Sequence[Item], scope: tuple[Finding, ...], skipped: Sequence[Skipped]) -> None:
    """Write labels and description of one hospital's archive. Raises `SampleInvalid` if it holds nothing."""
    if not written:
        reasons = "; ".join(sorted({one.reason for one in skipped})) or "no patients"
        raise SampleInvalid(
            f"no image is left for {display_name(index)}: {reasons}",
            remedy="Ask for fewer hospitals, or mend the set's images.",
        )
    archive = Archive(
        path=part / hospital_name(index),
        name=hospital_name(index),
        display_name=display_name(index),
        synthetic=False,
        patients=len({item.identity.patient_id for item in written}),
        studies=len(written),
        images=len(written),
        labels=labels_in(scope),
    )
    write_archive(archive, [(i.identity.study_uid, i.record.findings) for i in written if i.record.findings])
