"""Makes phantom hospitals: archives of synthetic chest radiographs with known findings, deterministic by seed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.archive import (
    DICOM,
    Archive,
    labels_in,
    publishing,
    read_archives,
    unchanged,
    write_archive,
)
from silo_app.imaging.samples.findings import SCOPE
from silo_app.imaging.samples.hospitals import hospital
from silo_app.imaging.samples.patients import studies_of_patients
from silo_app.imaging.samples.phantom_patient import Made, Order, make_patient
from silo_app.imaging.samples.pool import spread

Progress = Callable[[int, int, str], None]
"""Called with what is done, what there is to do, and what is being done."""

VERSION = 1
"""Of the phantoms: another version makes other files from the same seed."""

MOST_HOSPITALS, MOST_STUDIES = 99, 100_000


def make_phantoms(
    out: Path,
    *,
    hospitals: int = 3,
    studies: int | Sequence[int] = 240,
    seed: int = 0,
    progress: Progress | None = None,
    workers: int = 1,
) -> list[Archive]:
    """Write `hospitals` phantom archives of so many studies each into the new folder `out`, and return them.

    The same arguments give the same bytes. Raises `SampleInvalid` if `out` holds something else.
    """
    counts = _counts(hospitals, studies)
    recipe = {"kind": "phantom", "version": VERSION, "studies": counts, "seed": seed}
    if (archives := unchanged(out, recipe)) is not None:
        return archives
    with publishing(out, recipe) as part:
        orders = [order for index, count in enumerate(counts) for order in _orders(part, index, count, seed)]
        made: list[Made] = []
        for one in spread(make_patient, orders, workers):
            made.append(one)
            if progress is not None:
                progress(sum(len(m.labels) for m in made), sum(counts), hospital(one.hospital).display_name)
        for index in range(len(counts)):
            _finish(part, index, [one for one in made if one.hospital == index])
    return read_archives(out)


def _counts(hospitals: int, studies: int | Sequence[int]) -> list[int]:
    """Return the number of studies of every hospital. Raises `SampleInvalid`."""
    counts = [studies] * hospitals if isinstance(studies, int) else list(studies)
    if not 1 <= hospitals <= MOST_HOSPITALS or len(counts) != hospitals:
        problem = f"{hospitals} hospitals were asked for, with {len(counts)} numbers of studies"
    elif min(counts) < 1 or max(counts) > MOST_STUDIES:
        problem = f"a hospital cannot have {min(counts) if min(counts) < 1 else max(counts)} studies"
    else:
        return counts
    raise SampleInvalid(
        problem,
        remedy=f"Ask for 1 to {MOST_HOSPITALS} hospitals, and one number of studies for all or one for each, "
        f"1 to {MOST_STUDIES}.",
    )


def _orders(part: Path, index: int, studies: int, seed: int) -> list[Order]:
    """Return the patients to make for one hospital."""
    folder = part / hospital(index).name / DICOM
    folder.mkdir(parents=True)
    counts = studies_of_patients(studies, np.random.default_rng((seed, index)))
    return [
        Order(seed=seed, hospital=index, patient=number, studies=count, folder=folder)
        for number, count in enumerate(counts, start=1)
    ]


def _finish(part: Path, index: int, made: Sequence[Made]) -> None:
    """Write the labels and the description of one hospital's archive."""
    patients = sorted(made, key=lambda one: one.patient)
    labels = [label for one in patients for label in one.labels]
    one = hospital(index)
    archive = Archive(
        path=part / one.name,
        name=one.name,
        display_name=one.display_name,
        synthetic=True,
        patients=len(patients),
        studies=len(labels),
        images=sum(patient.images for patient in patients),
        labels=labels_in(SCOPE),
    )
    write_archive(archive, labels)
