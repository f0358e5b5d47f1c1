"""Decides which image of which set goes to which hospital, under which name; pure, before anything is written."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from silo_app.cases import Finding
from silo_app.errors import SampleInvalid
from silo_app.imaging.samples.dicom_file import Identity, uid
from silo_app.imaging.samples.hospitals import display_name
from silo_app.imaging.samples.partition import Patient, dirichlet
from silo_app.imaging.samples.records import Listing, Record

MOST_HOSPITALS = 99
ALPHAS = (0.05, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One image to write."""

    record: Record
    hospital: int
    identity: Identity
    file: str
    """Where, in the hospital's DICOM folder; made of our own numbers only."""


def hospital_counts(sets: int, hospitals: int | Sequence[int], *, separate: bool, alpha: float) -> list[int]:
    """Return the number of hospitals of every set if they are `separate`, else of all sets. Raises `SampleInvalid`."""
    counts = [hospitals] * (sets if separate else 1) if isinstance(hospitals, int) else list(hospitals)
    if len(counts) != (sets if separate else 1):
        problem = f"{len(counts)} numbers of hospitals were given for {sets} sets"
        remedy = "With --separate give one number for each set, as --hospitals 2,1; without it, one number."
    elif min(counts) < 1 or sum(counts) > MOST_HOSPITALS:
        problem = f"{sum(counts)} hospitals were asked for" if min(counts) > 0 else "a set was given no hospital"
        remedy = f"Ask for 1 to {MOST_HOSPITALS} hospitals."
    elif not ALPHAS[0] <= alpha <= ALPHAS[1]:
        problem, remedy = (
            f"alpha is {alpha}",
            f"Choose alpha between {ALPHAS[0]} (very unlike) and {ALPHAS[1]:g} (alike).",
        )
    else:
        return counts
    raise SampleInvalid(problem, remedy=remedy)


def limited(listing: Listing, limit: int | None, seed: int) -> Listing:
    """Return the listing with at most `limit` images, of whole patients drawn from `seed` as far as that goes."""
    if limit is None or len(listing.records) <= limit:
        return listing
    of_patient: dict[str, list[Record]] = defaultdict(list)
    for record in listing.records:
        of_patient[record.patient].append(record)
    names = sorted(of_patient)
    order = np.random.default_rng((seed, 1)).permutation(len(names))
    chosen = [record for i in order for record in of_patient[names[i]]][:limit]
    return Listing(tuple(chosen), listing.skipped, listing.unmapped, listing.scope)


def place(listings: Sequence[Listing], counts: Sequence[int], alpha: float, seed: int) -> dict[Patient, int]:
    """Return the hospital of every patient (set, name); one count for each listing, or one for all together."""
    if len(counts) == 1:
        return _divide(listings, counts[0], alpha, seed)
    places: dict[Patient, int] = {}
    for number, (listing, count) in enumerate(zip(listings, counts, strict=True)):
        first = sum(counts[:number])
        divided = _divide([listing], count, alpha, seed + number)
        places |= {patient: first + hospital for patient, hospital in divided.items()}
    return places


def scopes(listings: Sequence[Listing], counts: Sequence[int]) -> list[tuple[Finding, ...]]:
    """Return what the labels of every hospital speak of: of its own set, or what all sets in it have in common."""
    if len(counts) > 1:
        return [listing.scope for listing, count in zip(listings, counts, strict=True) for _ in range(count)]
    common = set.intersection(*(set(listing.scope) for listing in listings))
    return [tuple(sorted(common))] * counts[0]


def items(listings: Sequence[Listing], names: Sequence[str], places: dict[Patient, int]) -> list[Item]:
    """Return every image with its hospital and its identity there; patients and images are numbered in order."""
    of_patient: dict[Patient, list[Record]] = defaultdict(list)
    for listing in listings:
        for record in listing.records:
            of_patient[record.set, record.patient].append(record)
    numbers: Counter[int] = Counter()
    found = []
    for key in sorted(of_patient):
        hospital = places[key]
        numbers[hospital] += 1
        records = sorted(of_patient[key], key=lambda one: (one.order, one.file))
        for count, record in enumerate(records, start=1):
            file = PurePosixPath(f"P{numbers[hospital]:05d}") / f"S{count:03d}" / "IM01.dcm"
            identity = _identity(record, names, hospital, f"{numbers[hospital]:05d}{count:03d}")
            found.append(Item(record=record, hospital=hospital, identity=identity, file=str(file)))
    return found


def _divide(listings: Sequence[Listing], hospitals: int, alpha: float, seed: int) -> dict[Patient, int]:
    frequency = Counter(one for listing in listings for r in listing.records for one in r.findings or ())
    kinds: dict[Patient, str] = {}
    for listing in listings:
        for record in listing.records:
            kind = _kind(record, frequency)
            key = (record.set, record.patient)
            if kinds.get(key, Finding.NO_FINDING.value) in {"", Finding.NO_FINDING.value}:
                kinds[key] = kind
    return dirichlet(kinds, hospitals, alpha, seed)


def _kind(record: Record, frequency: Counter[Finding]) -> str:
    """Return the finding by which a patient is placed: of several the most frequent, which makes few large kinds."""
    return max(record.findings or (), key=lambda one: (frequency[one], one), default="")


def _identity(record: Record, names: Sequence[str], hospital: int, number: str) -> Identity:
    patient = patient_id(f"{record.set + 1}-{record.patient}" if len(names) > 1 else record.patient)
    source = (names[record.set], record.set, record.file)
    return Identity(
        patient_id=patient,
        patient_name=f"Imported^{patient}",
        sex=record.sex,
        age=record.age,
        born=None,
        day=None,
        accession=f"I{number}",
        institution=f"{display_name(hospital)} (imported)",
        study_uid=uid("import", "study", *source),
        series_uid=uid("import", "series", *source),
        instance_uid=uid("import", "instance", *source),
    )


def patient_id(name: str) -> str:
    """Return a patient's name in a set as a Patient ID may be (LO, PS3.5 6.2): short and plain, or a digest of it."""
    if re.fullmatch(r"[A-Za-z0-9._ -]{1,55}", name):
        return name
    return f"H{hashlib.sha256(name.encode()).hexdigest()[:16]}"
